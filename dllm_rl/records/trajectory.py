"""How a sampler wrote its canvases: the record, and its readings (states, order of writing, which step wrote what).

Legend: b rows, l canvas, s steps, j slots, k steps that are asked about.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl import html
from dllm_rl.errors import ConfigError
from dllm_rl.likelihood.constraint import Constraint, join
from dllm_rl.records.events import Events, Kind, join_events, recorded_orders

if TYPE_CHECKING:
    from dllm_rl.likelihood.positions import PositionLaw
    from dllm_rl.policies.transitions import Transition
    from dllm_rl.records.canvas import Canvas
    from dllm_rl.records.types import Completions, Rollouts

MAX_POSITIONS, MAX_STEPS = 24, 24
# Rows that a notebook shows.
MAX_SHOWN = 16


# Not slotted: what is rebuilt from the events is kept beside them.
@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """How the sampler wrote each canvas: its events, from which states and final draws are rebuilt when asked for.

    Attributes:
        num_steps: Denoising steps of the longest row.
        time: Of each state, for the flow family.
        path_log_probs: Summed log-probability of each position's transitions, for the flow family.
        slot_size, slot_joined: For the slot family, whose feed order follows from the step at which each slot joined
            the committed ones (`dllm_rl.records.events.feed_order`).
        constraint: What the draws were constrained by; log-probabilities are then those of the constrained
            distribution.
        transition: How positions moved between two times, for the flow family.
        position_law: How a step's positions were drawn, where the policy moves their probabilities and they are known.
        hides_order: Whether the policy moves probabilities of positions that are not known.
    """

    events: Events
    num_steps: int
    time: Float[Tensor, " s1"] | None = None
    path_log_probs: Float[Tensor, "b l"] | None = None
    slot_size: int | None = None
    slot_joined: Int[Tensor, "b j"] | None = None
    is_approximate: bool = False
    constraint: Constraint | None = None
    transition: Transition | None = None
    position_law: PositionLaw | None = None
    hides_order: bool = False

    def __post_init__(self) -> None:
        if (self.slot_size is None) != (self.slot_joined is None):
            raise ConfigError(
                "the record of a slot sampler says both its slot_size and slot_joined, the step at which each slot "
                "joined the committed ones: without them a replay would read the slots in another order"
            )

    @property
    def commit_step(self) -> Int[Tensor, "b l"]:
        """Step that drew the final token, -1 where nothing was drawn (forced, filled up after EOS)."""
        return self._final_draws[0]

    @property
    def log_probs(self) -> Float[Tensor, "b l"]:
        """Behaviour log-probability of the final token at its commit, 0 where commit_step is -1.

        For the flow family the summed log-probability of the position's transitions.
        """
        return self._final_draws[1] if self.path_log_probs is None else self.path_log_probs

    @property
    def entropy(self) -> Float[Tensor, "b l"]:
        """Entropy in nats of the distribution that the final token was drawn from."""
        return self._final_draws[2]

    @property
    def keeps_states(self) -> bool:
        """False where the canvas was written left to right: a step read the tokens before it."""
        return self.events.initial is not None

    @functools.cached_property
    def canvases(self) -> Int[Tensor, "b s1 l"] | None:
        """State before step 0, 1, ..., and after the last. Kept once rebuilt: prefer `states` where a few will do."""
        return self.states(self._all_steps).transpose(0, 1) if self.keeps_states else None

    @functools.cached_property
    def order(self) -> Int[Tensor, "b s1 l"] | None:
        """Feed order of the canvas columns at each state, for the slot family."""
        orders = self.orders(self._all_steps)
        return None if orders is None else orders.transpose(0, 1)

    def states(self, steps: Int[Tensor, "k b"], blank: int = -1) -> Int[Tensor, "k b l"]:
        """What each row held before these steps.

        Args:
            blank: What stands where nothing was written yet left to right.
        """
        return self.events.states(steps, blank)

    def orders(self, steps: Int[Tensor, "k b"]) -> Int[Tensor, "k b l"] | None:
        """The feed order before these steps, for the slot family."""
        if self.slot_size is None or self.slot_joined is None:
            return None
        return recorded_orders(self.events, self.slot_joined, steps, self.slot_size)

    def rows(self, index: Tensor) -> Trajectory:
        """The rows of this index."""
        return replace(
            self,
            events=self.events.rows(index),
            path_log_probs=None if self.path_log_probs is None else self.path_log_probs[index],
            slot_joined=None if self.slot_joined is None else self.slot_joined[index],
            constraint=None if self.constraint is None else self.constraint.rows(index),
        )

    @functools.cached_property
    def _final_draws(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.events.final_draws()

    @property
    def _all_steps(self) -> Int[Tensor, "s1 b"]:
        steps = torch.arange(self.num_steps + 1, device=self.events.end.device)
        return steps[:, None].expand(-1, len(self.events.end))

    def _repr_html_(self) -> str:
        """The order of writing in a notebook: a row a completion, in each position the step that drew its token.

        A film shows the tokens, step by step (`experiments.report.film.record_film`).
        """
        last = max(1, self.num_steps - 1)
        rows = [
            (row, html.Raw("".join(_shaded(step, log_prob, last) for step, log_prob in zip(*columns, strict=True))))
            for row, columns in enumerate(zip(self.commit_step.tolist(), self.log_probs.tolist(), strict=True))
        ]
        hidden = len(rows) - MAX_SHOWN
        more = html.paragraph(f"and {hidden} more rows") if hidden > 0 else ""
        return html.table(("row", "step that drew each position"), rows[:MAX_SHOWN]) + more

    def __getstate__(self) -> dict[str, Any]:
        """Without what was rebuilt, so that processes send one another the events only."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def _shaded(step: int, log_prob: float, last: int) -> str:
    """A position: the step that drew it, darker the later."""
    if step < 0:
        return html.shade("\u00b7", 0.0, title="not drawn")
    return html.shade(step, step / last, title=f"step {step}, log-probability {log_prob:.2f}")


def join_trajectories(parts: Sequence[Trajectory], place: Tensor | None = None) -> Trajectory:
    """One record of all rows, as `join_completions`.

    Where parts do not share one law of positions, the record of all does not say how positions were drawn.

    Raises ConfigError for flow trajectories of different numbers of steps.
    """
    longest = max(part.num_steps for part in parts)
    if parts[0].time is not None and any(part.num_steps != longest for part in parts):
        raise ConfigError(
            "trajectories of different numbers of flow steps cannot be joined; fix the sampler's num_steps."
        )
    paths = [part.path_log_probs for part in parts if part.path_log_probs is not None]
    slots = [part.slot_joined for part in parts if part.slot_joined is not None]
    constraints = [part.constraint for part in parts if part.constraint is not None]
    laws = {part.position_law for part in parts}
    joined = replace(
        parts[0],
        events=join_events([part.events for part in parts]),
        num_steps=longest,
        path_log_probs=torch.cat(paths) if paths else None,
        slot_joined=torch.cat(slots) if slots else None,
        constraint=join(constraints) if constraints else None,
        is_approximate=any(part.is_approximate for part in parts),
        position_law=parts[0].position_law if len(laws) == 1 else None,
        hides_order=len(laws) > 1 or any(part.hides_order for part in parts),
    )
    return joined if place is None else joined.rows(place)


def frames(completions: Completions, blank_id: int) -> Int[Tensor, "b s1 l"]:
    """The canvas before the first step and after each. blank_id fills what was not yet written left to right.

    There, tokens that a grammar forced are written with the draw before them.
    """
    record = completions.trajectory
    if record.canvases is not None:
        return record.canvases
    steps = torch.arange(record.num_steps + 1)[:, None].expand(-1, len(completions.ids))
    return record.states(steps, blank_id).transpose(0, 1)


def states(completions: Completions, steps: Int[Tensor, " b"]) -> Int[Tensor, "b l"]:
    """The canvas that each row's step read. Raises ConfigError where the sampler keeps no canvases (left to right)."""
    if not completions.trajectory.keeps_states:
        raise ConfigError("this sampler writes left to right and keeps no canvases: a step read the tokens before it")
    return completions.trajectory.states(steps[None])[0]


def commit_order(completions: Completions, row: int) -> list[int]:
    """Columns of a row in the order in which their final tokens were drawn; equal steps from left to right."""
    step = completions.trajectory.commit_step[row]
    return [int(column) for column in step.argsort(stable=True) if step[column] >= 0]


def retakes(completions: Completions) -> Bool[Tensor, "b l"]:
    """Positions where a token was masked again, or overwritten by another one (the flow family's jumps aside)."""
    events = completions.trajectory.events
    found = torch.zeros_like(completions.mask)
    found.view(-1)[events.place[(events.kind == Kind.REMASK) | (events.kind == Kind.EDIT)]] = True
    return found


def step_map(completions: Completions, *, last: bool = False) -> Int[Tensor, "b l"]:
    """Step that wrote each position, -1 where nothing was drawn.

    Raises ConfigError where positions were masked again or overwritten, unless `last` asks for the last write's step.
    """
    if not last and retakes(completions).any():
        raise ConfigError("positions were masked again, so one step does not say it all; ask for last=True")
    return completions.trajectory.commit_step


def confidence(completions: Completions) -> Float[Tensor, "b l"]:
    """Probability with which each drawn token was drawn; 1 where it was forced.

    The flow family draws every position again and again, so that no single draw wrote it: there it is exp(-entropy) of
    the distribution of the last draw, which is 1 where that was certain.
    """
    record = completions.trajectory
    return record.log_probs.exp() if record.time is None else (-record.entropy).exp()


def commit_counts(rollouts: Rollouts, canvas: Canvas) -> dict[str, Any]:
    """Counts of visible tokens by position (rows) and the denoising step that wrote them (columns), both binned.

    num_positions, num_steps: what the bins cover, from 0. Tokens that no step drew are not counted.
    """
    trajectory = rollouts.trajectory
    assert trajectory is not None
    commit = trajectory.commit_step
    drawn = canvas.visible(rollouts.completion_ids) & (commit >= 0)
    if not drawn.any():
        return {"num_positions": 0, "num_steps": 0, "counts": []}
    position = torch.arange(commit.shape[1], device=commit.device).expand_as(commit)[drawn]
    step = commit[drawn]
    num_positions, num_steps = int(position.max()) + 1, int(step.max()) + 1
    rows, columns = min(MAX_POSITIONS, num_positions), min(MAX_STEPS, num_steps)
    index = (position * rows // num_positions) * columns + step * columns // num_steps
    counts = torch.bincount(index, minlength=rows * columns).reshape(rows, columns)
    return {"num_positions": num_positions, "num_steps": num_steps, "counts": counts.tolist()}
