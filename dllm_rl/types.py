"""Tensor records that travel between samplers, objectives, policies and trainer.

Legend: b rows (prompts x group), p prompt length (left-padded), l canvas length, s denoising steps, k views.
Every record is frozen: a rollout is made once and never changes afterwards.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.constraint import Constraint
from dllm_rl.errors import ConfigError
from dllm_rl.events import Events
from dllm_rl.feed_order import recorded_orders
from dllm_rl.tasks import Page

Family = Literal["autoregressive", "masked", "block", "slot", "flow"]
# How a position of the flow family moves between two times: `dllm_rl.policies.flow`.
FlowLaw = Literal["exact", "euler", "cumulative"]
FAMILIES: tuple[Family, ...] = ("autoregressive", "masked", "block", "slot", "flow")


def _map(record: Any, function: Callable[[Tensor], Tensor]) -> Any:
    changes = {}
    for item in fields(record):
        value = getattr(record, item.name)
        if isinstance(value, Tensor):
            changes[item.name] = function(value)
    return replace(record, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Tokenised prompts, left-padded. row_ids name the rows for the noise, so that no draw depends on the batch.

    pages: what each row's plan acts on, for decoding under the grammar.
    """

    ids: Int[Tensor, "b p"]
    mask: Bool[Tensor, "b p"]
    row_ids: Int[Tensor, " b"]
    pages: tuple[Page, ...] | None = None

    @classmethod
    def left_padded(cls, encoded: Sequence[Sequence[int]], *, row_ids: Sequence[int], pad_id: int) -> Prompts:
        """Prompts of these token ids, padded to the longest."""
        lengths = torch.tensor([len(tokens) for tokens in encoded])
        longest = int(lengths.max())
        ids = torch.full((len(encoded), longest), pad_id, dtype=torch.long)
        for row, tokens in zip(ids, encoded, strict=True):
            row[longest - len(tokens) :] = torch.tensor(tokens)
        mask = torch.arange(longest) >= (longest - lengths)[:, None]
        return cls(ids=ids, mask=mask, row_ids=torch.tensor(list(row_ids), dtype=torch.long))

    def rows(self, index: Tensor) -> Prompts:
        """The rows of this index."""
        pages = None if self.pages is None else tuple(self.pages[row] for row in index.tolist())
        return replace(_map(self, lambda tensor: tensor[index]), pages=pages)


# Not slotted: what is rebuilt from the events is kept beside them.
@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """How the sampler wrote each canvas: its events, from which states and final draws are rebuilt when asked for.

    num_steps: denoising steps of the longest row. time: of each state, for the flow family, and path_log_probs the
    summed log-probability of each position's transitions. slot_size, slot_joined: for the slot family, whose feed order
    follows from the step at which each slot joined the committed ones (`dllm_rl.feed_order`). constraint: what the
    draws were constrained by; log-probabilities are then those of the constrained law. flow_law: which transition law
    of the flow family the draws follow.
    """

    events: Events
    num_steps: int
    time: Float[Tensor, " s1"] | None = None
    path_log_probs: Float[Tensor, "b l"] | None = None
    slot_size: int | None = None
    slot_joined: Int[Tensor, "b j"] | None = None
    is_approximate: bool = False
    constraint: Constraint | None = None
    flow_law: FlowLaw = "exact"

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
        """What each row held before these steps. blank: what stands where nothing was written yet left to right."""
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

    def __getstate__(self) -> dict[str, Any]:
        """Without what was rebuilt, so that processes send one another the events only."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What each denoising step would have answered, had the policy written all that was still open at once.

    ids: the completed canvas of a step, closed at its EOS. score: what the step itself drew, before that EOS.
    confidence: probability of each drawn token under the policy that sampled, 0 where not scored.
    """

    ids: Int[Tensor, "b s l"]
    score: Bool[Tensor, "b s l"]
    confidence: Float[Tensor, "b s l"]

    def rows(self, index: Tensor) -> Answers:
        """The rows of this index."""
        return _map(self, lambda tensor: tensor[index])


@dataclass(frozen=True, slots=True, kw_only=True)
class Completions:
    """What a sampler returns. mask: 1 on scored tokens (EOS included; FILL, everything after EOS and what a grammar
    forced excluded).

    nfe: model forwards, one after another, that the batch took; on a CPU a batch is cut into small ones, whose forwards
        are not added up, so that it says the same on every device.
    token_forwards: sum over forwards of active rows x query positions.
    """

    ids: Int[Tensor, "b l"]
    mask: Bool[Tensor, "b l"]
    trajectory: Trajectory
    nfe: int
    token_forwards: int

    def rows(self, index: Tensor) -> Completions:
        """The rows of this index; what the batch cost stays."""
        return replace(_map(self, lambda tensor: tensor[index]), trajectory=self.trajectory.rows(index))


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledRow:
    """One row of a batch that a sampler wrote, which stays whole until its rows are stacked for training.

    prompts: what the batch was written from. completions: the batch.
    """

    prompts: Prompts
    completions: Completions
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sizes of the whole optimiser step, over ranks and micro-batches, by which reductions divide.

    rows: valid rows. groups: groups with at least one valid row. tokens: scored tokens of valid rows.
    max_len: canvas length.
    """

    rows: int
    groups: int
    tokens: int
    max_len: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """Completions with their rewards, grouped per task by group_ids (never by position).

    valid: False where the environment lost the rollout; such a row has no gradient and moves no baseline.
    answers, step_rewards: intermediate answers and their rewards, the environment's from a row's last step on; recorded
      only for objectives that require step_rewards. temperature: of the sampler.
    """

    prompt_ids: Int[Tensor, "b p"]
    prompt_mask: Bool[Tensor, "b p"]
    completion_ids: Int[Tensor, "b l"]
    completion_mask: Bool[Tensor, "b l"]
    rewards: Float[Tensor, " b"]
    group_ids: Int[Tensor, " b"]
    valid: Bool[Tensor, " b"]
    trajectory: Trajectory | None
    totals: Totals
    step_rewards: Float[Tensor, "b s"] | None = None
    answers: Answers | None = None
    temperature: float = 1.0

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.completion_ids.shape[0]

    def rows(self, index: Tensor) -> Rollouts:
        """The rows of this index; `totals` stays that of the whole step, so that micro-batch losses add up."""
        trajectory = None if self.trajectory is None else self.trajectory.rows(index)
        answers = None if self.answers is None else self.answers.rows(index)
        return replace(_map(self, lambda tensor: tensor[index]), trajectory=trajectory, answers=answers)

    @staticmethod
    def count_totals(valid: Tensor, group_ids: Tensor, completion_mask: Tensor) -> Totals:
        """Count the sizes of a whole step from its (unsplit) tensors."""
        return Totals(
            rows=int(valid.sum()),
            groups=int(group_ids[valid].unique().numel()),
            tokens=int(completion_mask[valid].sum()),
            max_len=completion_mask.shape[1],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """Corrupted copies of the completions, drawn once and scored by the current, old and reference policy alike.

    kind: exact, one_step, elbo, trajectory, answer, causal_shifted or causal_noised.
    tokens: what the model sees. prompt_tokens: prompt as seen, None = unchanged.
    targets: what is scored, None = the completion. score: which positions are scored.
    weight: of a term inside the log-likelihood. loss_weight: multiplies loss terms. step: column of (b, s) advantages.
    time, time_next: noise level per view, for the flow family, and flow_law the law of its transitions. order: feed
    order of the canvas, for the slot family.
    read: native attention, or the two mis-specified causal readings of the original study.
    """

    kind: str
    tokens: Int[Tensor, "k b l"]
    score: Bool[Tensor, "k b l"]
    weight: Float[Tensor, "k b l"]
    prompt_tokens: Int[Tensor, "k b p"] | None = None
    targets: Int[Tensor, "k b l"] | None = None
    loss_weight: Float[Tensor, "k b l"] | None = None
    time: Float[Tensor, "k b"] | None = None
    time_next: Float[Tensor, "k b"] | None = None
    step: Int[Tensor, "k b"] | None = None
    order: Int[Tensor, "k b l"] | None = None
    read: Literal["native", "causal", "causal_shifted"] = "native"
    flow_law: FlowLaw = "exact"

    @property
    def num_views(self) -> int:
        """Number of views, k."""
        return self.tokens.shape[0]

    def rows(self, index: Tensor) -> Views:
        """The rows of this index, in every view."""
        return _map(self, lambda tensor: tensor[:, index])

    def views(self, index: Tensor) -> Views:
        """The views of this index, for every row."""
        return _map(self, lambda tensor: tensor[index])


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A scalar to go backward from, and plain-number metrics by documented name."""

    value: Float[Tensor, ""]
    metrics: dict[str, float]
