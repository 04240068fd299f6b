"""What happened to a canvas, one event a changed position, from which its state at any step is rebuilt.

A token drawn, masked again, jumped to, or written without a draw is an event of 21 bytes; a canvas of l columns that is
written once takes 21 l bytes and its first state 4 l, where its states as whole canvases take 8 l for every step.

In the slot family columns are fed in an order of their own: committed slots as their groups were finished, then the
others.

Legend: b rows, l canvas, e events, j slots, k steps that are asked about, n = b l.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

BEFORE_ALL = -1
# The rank of a slot that did not join.
NEVER_JOINED = torch.iinfo(torch.int32).max
_FOREVER = torch.iinfo(torch.int32).max


class Kind(IntEnum):
    """What an event is. The first three are draws and carry their log-probability and entropy; the others have none.

    Attributes:
        COMMIT: A token where none stood.
        EDIT: Another token over one that stood.
        JUMP: What a transition of the flow family led to (the last step's for every position, the same token included).
        REMASK: The token is taken back.
        FORCED: The only token that a grammar leaves.
        EOS_FILL: Padding where a text has ended.
        GIVEN: A token that stood before the first step (`Prompts.given`).
    """

    COMMIT = 0
    EDIT = 1
    JUMP = 2
    REMASK = 3
    FORCED = 4
    EOS_FILL = 5
    GIVEN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """The events of all rows: row i's are start[i] to start[i + 1], in the order in which they happened.

    Attributes:
        step: BEFORE_ALL for what was written before the first forward.
        log_prob: Of the draw, under the distribution that it was drawn from (at temperature 0, where tokens are not
            drawn, under that of temperature 1).
        entropy: Of that distribution, in nats.
        initial: The canvas before all events; None where it was written left to right and nothing stood.
        length: l.
        end: How many steps were taken where the row was written; events from that step on close the text and belong to
            no state.
    """

    start: Int[Tensor, " b1"]
    step: Int[Tensor, " e"]
    column: Int[Tensor, " e"]
    token: Int[Tensor, " e"]
    kind: UInt8[Tensor, " e"]
    log_prob: Float[Tensor, " e"]
    entropy: Float[Tensor, " e"]
    end: Int[Tensor, " b"]
    initial: Int[Tensor, "b l"] | None
    length: int

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        values = [getattr(self, item.name) for item in fields(self)]
        return sum(value.nbytes for value in values if isinstance(value, Tensor))

    @property
    def row(self) -> Int[Tensor, " e"]:
        """Row of each event."""
        return torch.arange(len(self.end), device=self.start.device).repeat_interleave(self.start.diff().long())

    @property
    def place(self) -> Int[Tensor, " e"]:
        """Position of each event in the flattened canvases, row x l + column."""
        return self.row * self.length + self.column

    def rows(self, index: Tensor) -> Events:
        """The events of these rows."""
        index = torch.arange(len(self.end), device=self.start.device)[index]
        begin, count = self.start[:-1][index].long(), self.start.diff()[index].long()
        start = _starts(count)
        here = (begin - start[:-1]).repeat_interleave(count) + torch.arange(int(start[-1]), device=begin.device)
        columns = {name: getattr(self, name)[here] for name in _COLUMNS}
        initial = None if self.initial is None else self.initial[index]
        return replace(self, start=start.int(), end=self.end[index], initial=initial, **columns)

    def states(self, steps: Int[Tensor, "k b"], blank: int = -1) -> Int[Tensor, "k b l"]:
        """What each row's canvas held before these steps; `blank` where nothing stood yet (left to right)."""
        return self._tokens(torch.minimum(steps, self.end), blank)

    def text(self) -> Int[Tensor, "b l"]:
        """The canvas after its last step, closed at its end."""
        return self._tokens(torch.full_like(self.end[None], _FOREVER), -1)[0]

    def final_draws(self) -> tuple[Int[Tensor, "b l"], Float[Tensor, "b l"], Float[Tensor, "b l"]]:
        """Step, log-probability and entropy of the draw that each final token came from; (-1, 0, 0) where it has none:
        never written, forced, or masked again.
        """
        last = self._last(self.end[None])[0]
        shape, is_drawn = (len(self.end), self.length), self.kind <= Kind.JUMP
        step = self._pick(last, torch.where(is_drawn, self.step, -1).long(), -1)
        log_prob = self._pick(last, torch.where(is_drawn, self.log_prob, 0.0), 0.0)
        entropy = self._pick(last, torch.where(is_drawn, self.entropy, 0.0), 0.0)
        return step.view(shape), log_prob.view(shape), entropy.view(shape)

    def scored_draws(self, eos_id: int) -> Bool[Tensor, "b l"]:
        """Where the final token was drawn, and another one could have changed the text: FILL, EOS and PAD included.

        A draw behind an EOS that stood already changes no text by itself, but all later draws of the row read it. Only
        those of the row's last draws are left out.
        """
        last, shape = self._last(self.end[None])[0], (len(self.end), self.length)
        written = self._pick(last, self.step, _FOREVER).view(shape)
        drawn = self.final_draws()[0]
        is_eos = self._tokens(self.end[None], -1)[0] == eos_id
        ended = torch.where(is_eos, written, _FOREVER).cummin(dim=1).values
        stood = torch.nn.functional.pad(ended, (1, -1), value=_FOREVER) < drawn
        is_last = drawn == drawn.amax(dim=1, keepdim=True)
        return (drawn >= 0) & ~(stood & is_last)

    def is_forced(self) -> Bool[Tensor, "b l"]:
        """Where the final token is the only one that a grammar left."""
        return self._is_finally(Kind.FORCED)

    def is_given(self) -> Bool[Tensor, "b l"]:
        """Where the final token is one that was given, and so was never drawn."""
        return self._is_finally(Kind.GIVEN)

    def _is_finally(self, kind: Kind) -> Bool[Tensor, "b l"]:
        last = self._last(self.end[None])[0]
        return self._pick(last, self.kind == kind, False).view(len(self.end), self.length)

    def _tokens(self, limit: Int[Tensor, "k b"], blank: int) -> Int[Tensor, "k b l"]:
        first: Tensor | int = blank if self.initial is None else self.initial.flatten()
        return self._pick(self._last(limit), self.token, first).long().view(len(limit), -1, self.length)

    def _last(self, limit: Int[Tensor, "k b"]) -> Int[Tensor, "k n"]:
        """The last event at each position among those of earlier steps than the row's limit: n + its number, or the
        position itself where there is none.
        """
        size, row = len(self.end) * self.length, self.row
        number = torch.arange(size, size + len(row), device=row.device)
        number = torch.where(self.step < limit[:, row], number, 0)
        none = torch.arange(size, device=row.device).repeat(len(limit), 1)
        place = (row * self.length + self.column).expand(len(limit), -1)
        return none.scatter_reduce_(1, place, number, "amax")

    def _pick(self, last: Int[Tensor, "... n"], values: Tensor, first: Tensor | float) -> Tensor:
        """The value of each position's last event, or its first value."""
        size = last.shape[-1]
        begin = first if isinstance(first, Tensor) else torch.full((size,), first, device=values.device)
        return torch.cat([begin.to(values.dtype), values])[last]


_COLUMNS = ("step", "column", "token", "kind", "log_prob", "entropy")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsortedEvents:
    """Events in the order in which they happened, the rows mixed. Columns as in `Events`."""

    row: Int[Tensor, " e"]
    step: Int[Tensor, " e"]
    column: Int[Tensor, " e"]
    token: Int[Tensor, " e"]
    kind: Int[Tensor, " e"]
    log_prob: Float[Tensor, " e"]
    entropy: Float[Tensor, " e"]

    @classmethod
    def join(cls, parts: Sequence[UnsortedEvents]) -> UnsortedEvents:
        """What happened in one part after another."""
        return cls(**{item.name: torch.cat([getattr(part, item.name) for part in parts]) for item in fields(cls)})

    def of_ancestors(self, ancestor: Int[Tensor, " b"]) -> UnsortedEvents:
        """Events of rows that each have the past of another row: row i that of `ancestor[i]`."""
        order = self.row.argsort(stable=True)
        count = torch.bincount(self.row, minlength=int(ancestor.max()) + 1)
        begin, own = count.cumsum(0) - count, count[ancestor]
        start = own.cumsum(0) - own
        here = (begin[ancestor] - start).repeat_interleave(own) + torch.arange(int(own.sum()))
        taken = {item.name: getattr(self, item.name)[order[here]] for item in fields(self)}
        return UnsortedEvents(**{**taken, "row": torch.arange(len(ancestor)).repeat_interleave(own)})


def sort_events(
    events: UnsortedEvents, *, end: Int[Tensor, " b"], initial: Int[Tensor, "b l"] | None, length: int
) -> Events:
    """The record of these events, row by row.

    Args:
        end: As in `Events`.
        initial: As in `Events`.
        length: As in `Events`.
    """
    order = events.row.argsort(stable=True)
    return Events(
        start=_starts(torch.bincount(events.row, minlength=len(end))).int(),
        step=events.step[order].int(),
        column=events.column[order].int(),
        token=events.token[order].int(),
        kind=events.kind[order].to(torch.uint8),
        log_prob=events.log_prob[order].float(),
        entropy=events.entropy[order].float(),
        end=end.int(),
        initial=None if initial is None else initial.int(),
        length=length,
    )


def join_events(parts: Sequence[Events]) -> Events:
    """The events of several batches, their rows below one another."""
    merged = {name: torch.cat([getattr(part, name) for part in parts]) for name in (*_COLUMNS, "end")}
    initial = [part.initial for part in parts if part.initial is not None]
    count = torch.cat([part.start.diff() for part in parts])
    first = torch.cat(initial) if initial else None
    return replace(parts[0], start=_starts(count).int(), initial=first, **merged)


def events_of_states(
    canvases: Int[Tensor, "b s1 l"],
    commit_step: Int[Tensor, "b l"],
    log_probs: Float[Tensor, "b l"],
    entropy: Float[Tensor, "b l"],
    *,
    mask_id: int | None,
) -> Events:
    """The record of what was kept as whole canvases, with the step, log-probability and entropy of each final draw.

    Args:
        mask_id: None for the flow family. Draws that were taken back are events too; their log-probabilities are not
            known and stand as 0.
    """
    before, after = canvases[:, :-1], canvases[:, 1:]
    is_final = commit_step[:, None] == torch.arange(after.shape[1], device=canvases.device)[:, None]
    row, step, column = (is_final | (before != after)).nonzero(as_tuple=True)
    token, is_drawn = after[row, step, column], is_final[row, step, column]
    if mask_id is None:
        kind = torch.full_like(token, Kind.JUMP)
    else:
        will_be_drawn = commit_step[row, column] >= step
        kind = torch.where(will_be_drawn, int(Kind.COMMIT), int(Kind.FORCED))
        kind = torch.where(will_be_drawn & (before[row, step, column] != mask_id), int(Kind.EDIT), kind)
        kind = torch.where((token == mask_id) & ~is_drawn, int(Kind.REMASK), kind)
    happened = UnsortedEvents(
        row=row,
        step=step,
        column=column,
        token=token,
        kind=kind,
        log_prob=torch.where(is_drawn, log_probs[row, column], 0.0),
        entropy=torch.where(is_drawn, entropy[row, column], 0.0),
    )
    return sort_events(
        happened,
        end=torch.full((len(canvases),), after.shape[1], device=canvases.device),
        initial=canvases[:, 0],
        length=canvases.shape[2],
    )


def _starts(count: Int[Tensor, " b"]) -> Int[Tensor, " b1"]:
    return torch.nn.functional.pad(count.long().cumsum(0), (1, 0))


def feed_order(slot_rank: Int[Tensor, "b j"], slot_size: int, length: int) -> Int[Tensor, "b l"]:
    """Columns in feed order, slots sorted by rank (stable, so equal ranks keep the natural order)."""
    slots = slot_rank.argsort(dim=1, stable=True)
    columns = slots[:, :, None] * slot_size + torch.arange(slot_size, device=slots.device)
    return columns.flatten(1)[:, :length]


def recorded_orders(
    events: Events, joined: Int[Tensor, "b j"], steps: Int[Tensor, "k b"], slot_size: int
) -> Int[Tensor, "k b l"]:
    """The feed order that each row read before these steps; the natural one from its end on.

    Args:
        joined: The step at which each slot joined the committed ones; later than all steps where it never did.
    """
    rank = torch.where(joined < steps[..., None], joined, NEVER_JOINED)
    order = feed_order(rank.flatten(0, 1), slot_size, events.length).unflatten(0, steps.shape)
    natural = torch.arange(events.length, device=order.device)
    return torch.where((steps < events.end)[..., None], order, natural)
