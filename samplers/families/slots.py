"""Plan-and-infill decoding of slots (ReFusion 2512.13586), with every token drawn from the law that is recorded.

Plan: one forward over prompt, committed slots in commit order, masked slots; slots whose first token is confident are
opened (at least the best one). Infill: each open slot accepts the leading run of its confident positions, at least one
a forward, then redrafts the rest given what it accepted. A finished group is appended to the feed order.

Under the grammar, tokens that every accepted canvas has at a position count as accepted before anything is drawn there,
and slots that consist of such tokens join the feed order without a draw. What stands behind EOS is never written: it
stays masked and is fed last, as in the warm start.

Departures from the paper, so that the recorded probabilities are exact at any temperature: positions are accepted by
the confidence of the draft distribution before a token is drawn (choose-then-sample), and the separate verifying pass
through the shifted next-token head is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.canvas import until_first
from dllm_rl.errors import ConfigError
from dllm_rl.events import BEFORE_ALL, feed_order
from dllm_rl.policies.base import BasePolicy
from dllm_rl.registry import register
from dllm_rl.types import Completions, Family, Prompts
from samplers.config import check_options
from samplers.grammar.compile import constraint_of
from samplers.grammar.forcing import Forcing
from samplers.grammar.projection import project
from samplers.loop.chunks import in_chunks
from samplers.loop.record import Recorder, columns_of, is_finished


@register("sampler", "slots")
@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSampler:
    """slot_threshold opens slots, token_threshold accepts positions inside; both are top-token probabilities."""

    name: ClassVar[str] = "slots"
    version: ClassVar[int] = 1
    families: ClassVar[tuple[Family, ...]] = ("slot",)
    temperature: float = 1.0
    slot_threshold: float = 0.6
    token_threshold: float = 0.3
    grammar: bool = False

    def __post_init__(self) -> None:
        check_options(self)

    @torch.no_grad()
    def generate(self, policy: BasePolicy, prompts: Prompts, *, seed: int) -> Completions:
        """Sample one completion a row. Raises ConfigError where the canvas is not a whole number of slots."""
        size, length = policy.facts.slot_size, policy.facts.canvas_length
        if length % size:
            raise ConfigError(f"a canvas of {length} columns is not a whole number of slots of {size}")
        return in_chunks(policy, prompts, lambda part: self._write(policy, part, seed))

    def _write(self, policy: BasePolicy, prompts: Prompts, seed: int) -> Completions:
        size, length = policy.facts.slot_size, policy.facts.canvas_length
        canvas = policy.empty_canvas(len(prompts.ids))
        is_masked = torch.ones_like(canvas, dtype=torch.bool)
        num_slots = length // size
        rank = torch.full((len(canvas), num_slots), num_slots + length, dtype=torch.long)
        is_open = torch.zeros_like(rank, dtype=torch.bool)
        constraint = constraint_of(policy, prompts) if self.grammar else None
        record = Recorder(canvas, keeps_states=True)
        forcing = Forcing(constraint, record, pads=False)
        # Behind EOS nothing is drawn under the grammar, where only PAD can stand.
        ends_at = None if constraint is None else policy.canvas.eos_id
        forcing.force(torch.arange(len(canvas)), canvas, is_masked, BEFORE_ALL)
        _append_finished(rank, is_open, is_masked, _to_write(canvas, is_masked, ends_at), size, BEFORE_ALL)
        rows = (~is_finished(canvas, is_masked, policy.canvas.eos_id)).nonzero().squeeze(1)
        cache = policy.read_prompts(prompts.rows(rows)) if len(rows) else None
        if len(rows):
            record.count(len(rows), prompts.ids.shape[1])
        step = 0
        while len(rows):
            order = feed_order(rank, size, length)
            wanted = self._wanted(is_masked[rows], is_open[rows], size)
            columns, is_asked = columns_of(wanted if constraint is None else is_masked[rows])
            logits = policy.logits(prompts.rows(rows), canvas[rows], columns=columns, order=order[rows], cache=cache)
            record.count(len(rows), length)
            own = forcing.automata(rows)
            projection = project(own, logits, columns, canvas[rows], is_masked[rows], self.temperature)
            odds = torch.where(is_asked, projection.odds.sigmoid(), -1.0)
            confidence = torch.full((len(rows), length), -1.0).scatter(1, columns, odds)
            to_write = _to_write(canvas[rows], is_masked[rows], ends_at)
            is_open[rows] = self._plan(confidence, to_write, is_open[rows], size)
            chosen = self._accept(confidence, to_write, is_open[rows], size).gather(1, columns) & is_asked
            draw = projection.draw(chosen, seed, prompts.row_ids[rows], step)
            row = rows[draw.row]
            canvas[row, draw.column] = draw.tokens
            is_masked[row, draw.column] = False
            record.commit_at(row, draw.column, step, draw.tokens, draw.log_probs, projection.entropy(chosen))
            forcing.force(rows, canvas, is_masked, step)
            _append_finished(rank, is_open, is_masked, _to_write(canvas, is_masked, ends_at), size, step)
            step += 1
            alive = ~is_finished(canvas, is_masked, policy.canvas.eos_id)[rows]
            if cache is not None and alive.any() and not alive.all():
                cache.batch_select_indices(alive.nonzero().squeeze(1).to(policy.device))
            rows = rows[alive]
        return record.finish(policy, canvas, num_steps=step, slot_size=size, slot_joined=rank, constraint=constraint)

    def _wanted(self, is_masked: Bool[Tensor, "b l"], is_open: Bool[Tensor, "b j"], size: int) -> Bool[Tensor, "b l"]:
        """Where a law is needed: the masked positions of open slots; of all slots in rows that must open some."""
        must_open = ~is_open.any(dim=1, keepdim=True)
        return is_masked & (is_open | must_open).repeat_interleave(size, dim=1)

    def _plan(
        self, confidence: Float[Tensor, "b l"], is_masked: Bool[Tensor, "b l"], is_open: Bool[Tensor, "b j"], size: int
    ) -> Bool[Tensor, "b j"]:
        """Rows with no open slot open the confident ones, judged by their first masked position."""
        masked = _slots(is_masked, size)
        is_free = masked.any(dim=2)
        place = masked.long().argmax(dim=2, keepdim=True)
        first = _slots(confidence, size).gather(2, place).squeeze(2)
        score = first.masked_fill(~is_free, -1.0)
        best = torch.zeros_like(is_free).scatter(1, score.argmax(dim=1, keepdim=True), True)
        planned = is_free & ((score > self.slot_threshold) | best)
        return torch.where(is_open.any(dim=1, keepdim=True), is_open, planned)

    def _accept(
        self, confidence: Float[Tensor, "b l"], is_masked: Bool[Tensor, "b l"], is_open: Bool[Tensor, "b j"], size: int
    ) -> Bool[Tensor, "b l"]:
        """In each open slot: the leading run of masked positions that are confident, the first one always."""
        masked = _slots(is_masked, size)
        index = masked.long().cumsum(dim=2)
        is_good = (_slots(confidence, size) > self.token_threshold) | (index == 1)
        run = (is_good | ~masked).long().cumprod(dim=2).bool()
        return (run & masked & is_open[:, :, None]).flatten(1)


def _to_write(canvas: Int[Tensor, "b l"], is_masked: Bool[Tensor, "b l"], ends_at: int | None) -> Bool[Tensor, "b l"]:
    """The masked positions that may be drawn; not those behind this token, if one is given."""
    if ends_at is None:
        return is_masked
    is_end = (canvas == ends_at) & ~is_masked
    return is_masked & until_first(is_end)


def _append_finished(
    rank: Int[Tensor, "b j"],
    is_open: Bool[Tensor, "b j"],
    is_masked: Bool[Tensor, "b l"],
    to_write: Bool[Tensor, "b l"],
    size: int,
    step: int,
) -> None:
    """Where all open slots of a row are filled, they join the feed order after what is already committed.

    Slots that are full without having been open, which only forced tokens bring about, join at once.
    """
    is_done, is_begun = ~_slots(to_write, size).any(dim=2), ~_slots(is_masked, size).all(dim=2)
    group_done = is_open.any(dim=1) & (is_done | ~is_open).all(dim=1)
    closes = is_open & group_done[:, None]
    joins = is_begun & (closes | (is_done & ~is_open & (rank > step)))
    rank[joins] = step
    is_open &= ~closes


def _slots(of_columns: Tensor, size: int) -> Tensor:
    """(b, l) to (b, j, size)."""
    return of_columns.unflatten(1, (-1, size))
