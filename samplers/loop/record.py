"""What a sampler records: who wrote which token when, with which probability, as events.

Legend: b rows of the batch, n rows of the step, l canvas.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.likelihood.constraint import Constraint
from dllm_rl.likelihood.positions import PositionLaw
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.transitions import Transition
from dllm_rl.records.canvas import until_first
from dllm_rl.records.events import Kind, UnsortedEvents, sort_events
from dllm_rl.records.trajectory import Trajectory
from dllm_rl.records.types import Completions
from samplers.grammar.automaton import Automata


class Recorder:
    """Collects what happens to a canvas, in the order in which it happens; `finish` makes the immutable record.

    Args:
        canvas: The canvas before the first step.
        keeps_states: False where the canvas is written left to right, so that it is empty before.
        constraint: Constraint on all draws; None without a grammar.
    """

    def __init__(self, canvas: Int[Tensor, "b l"], *, keeps_states: bool, constraint: Constraint | None = None) -> None:
        self.initial = canvas.clone() if keeps_states else None
        self.constraint = constraint
        self.pieces: list[UnsortedEvents] = []
        self.path_log_probs: Tensor | None = None
        self.nfe = 0
        self.token_forwards = 0

    def count(self, rows: int, queries: int) -> None:
        """Count one forward over so many rows and query positions."""
        self.nfe += 1
        self.token_forwards += rows * queries

    def commit_at(
        self,
        row: Int[Tensor, " n"],
        column: Int[Tensor, " n"],
        step: int | Int[Tensor, " n"],
        tokens: Int[Tensor, " n"],
        log_probs: Float[Tensor, " n"],
        entropy: Float[Tensor, " n"],
        *,
        kind: Kind = Kind.COMMIT,
    ) -> None:
        """Note tokens that were drawn at these rows and columns, at one step or each at its own."""
        piece = UnsortedEvents(
            row=row,
            step=torch.as_tensor(step).expand(len(row)),
            column=column,
            token=tokens,
            kind=torch.full_like(row, kind),
            log_prob=log_probs,
            entropy=entropy,
        )
        self.pieces.append(piece)

    def write_at(
        self,
        row: Int[Tensor, " n"],
        column: Int[Tensor, " n"],
        step: int | Int[Tensor, " n"],
        tokens: Int[Tensor, " n"],
        kind: Kind,
    ) -> None:
        """Note tokens that were written without a draw (MASK, where a token is remasked)."""
        zeros = torch.zeros(len(row))
        self.commit_at(row, column, step, tokens, zeros, zeros, kind=kind)

    def jump(
        self,
        before: Int[Tensor, "b l"],
        after: Int[Tensor, "b l"],
        step: int,
        log_probs: Float[Tensor, "b l"],
        entropy: Float[Tensor, "b l"],
        *,
        is_last: bool,
    ) -> None:
        """Note every position's transition in a step of the flow family.

        Args:
            before: The canvas before the step.
            after: The canvas after it.
            step: Number of the step.
            log_probs: Log-probability of each transition, staying included.
            entropy: Entropy of each draw; 0 where nothing was redrawn.
            is_last: Whether this is the last step, which makes an event at every position.
        """
        if self.path_log_probs is None:
            self.path_log_probs = torch.zeros(before.shape)
        self.path_log_probs += log_probs
        is_event = torch.ones_like(before, dtype=torch.bool) if is_last else before != after
        row, column = is_event.nonzero(as_tuple=True)
        self.commit_at(row, column, step, after[is_event], log_probs[is_event], entropy[is_event], kind=Kind.JUMP)

    def fork(self, ancestor: Int[Tensor, " n"]) -> None:
        """Go on with rows that have the past of these rows: copies of some, and none of others."""
        self.pieces = [UnsortedEvents.join(self.pieces).of_ancestors(ancestor)] if self.pieces else []
        self.initial = None if self.initial is None else self.initial[ancestor]
        self.constraint = None if self.constraint is None else self.constraint.rows(ancestor)

    def finish(
        self,
        policy: BasePolicy,
        canvas: Int[Tensor, "b l"],
        *,
        num_steps: int,
        time: Tensor | None = None,
        slot_size: int | None = None,
        slot_joined: Int[Tensor, "b j"] | None = None,
        is_approximate: bool = False,
        transition: Transition | None = None,
        position_law: PositionLaw | None = None,
        hides_order: bool = False,
    ) -> Completions:
        """Close the canvas at its first EOS and freeze the record."""
        ids = policy.canvas.close(canvas)
        row, column = self._filled(canvas, ids).nonzero(as_tuple=True)
        self.write_at(row, column, num_steps, ids[row, column], Kind.EOS_FILL)
        events = sort_events(
            UnsortedEvents.join(self.pieces),
            end=torch.full((len(canvas),), num_steps),
            initial=self.initial,
            length=canvas.shape[1],
        )
        trajectory = Trajectory(
            events=events,
            num_steps=num_steps,
            time=time,
            path_log_probs=self.path_log_probs,
            slot_size=slot_size,
            slot_joined=None if slot_joined is None else slot_joined.int(),
            constraint=self.constraint,
            is_approximate=is_approximate,
            transition=transition,
            position_law=position_law,
            hides_order=hides_order,
        )
        mask = events.scored_draws(policy.canvas.eos_id)
        return Completions(ids=ids, mask=mask, trajectory=trajectory, nfe=self.nfe, token_forwards=self.token_forwards)

    def _filled(self, canvas: Int[Tensor, "b l"], ids: Int[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
        """Where closing wrote something; left to right also where nothing was written before."""
        if self.initial is not None:
            return ids != canvas
        is_filled = torch.ones_like(ids, dtype=torch.bool)
        for piece in self.pieces:
            is_filled[piece.row, piece.column] = False
        return is_filled | (ids != canvas)


def is_finished(canvas: Int[Tensor, "b l"], is_masked: Bool[Tensor, "b l"], eos_id: int) -> Bool[Tensor, " b"]:
    """Rows where no mask stands before the first EOS (or anywhere, where there is no EOS)."""
    is_eos = (canvas == eos_id) & ~is_masked
    return ~(is_masked & until_first(is_eos)).any(dim=1)


def columns_of(where: Bool[Tensor, "b l"]) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
    """The marked columns of each row in order, and which of them are marked (rows with fewer are filled up)."""
    count = int(where.sum(dim=1).max())
    columns = (~where).long().argsort(dim=1, stable=True)[:, :count]
    return columns, where.gather(1, columns)


class ForcedTokens:
    """Automata of the unfinished rows, and the tokens that they force; nothing without a constraint.

    Args:
        constraint: Constraint of the whole batch; None without a grammar.
        record: Where forced tokens are noted.
        writes_padding: Whether the padding behind EOS, which is forced too, is written.
    """

    def __init__(self, constraint: Constraint | None, record: Recorder, *, writes_padding: bool) -> None:
        self.constraint, self.record, self.writes_padding = constraint, record, writes_padding
        self._last: tuple[Tensor, Automata] | None = None

    def automata(self, rows: Int[Tensor, " n"]) -> Automata | None:
        """The automata of these rows; the last ones are kept, since most rules ask about the same rows again."""
        if self.constraint is None:
            return None
        if self._last is None or not torch.equal(self._last[0], rows):
            self._last = rows, Automata(self.constraint.rows(rows))
        return self._last[1]

    def write(
        self, rows: Int[Tensor, " n"], canvas: Int[Tensor, "b l"], is_masked: Bool[Tensor, "b l"], step: int
    ) -> None:
        """Write, in place, what every accepted canvas has at a masked position: probability 1, no draw, no forward."""
        automata = self.automata(rows)
        if automata is None:
            return
        row, column, tokens = automata.forced(canvas[rows], is_masked[rows], has_padding=self.writes_padding)
        canvas[rows[row], column] = tokens
        is_masked[rows[row], column] = False
        self.record.write_at(rows[row], column, step, tokens, Kind.FORCED)
