"""Plan-and-infill decoding of slots (ReFusion 2512.13586), with every token drawn from the law that is recorded.

Plan: one forward over prompt, committed slots in commit order, masked slots; slots whose first token is confident are
opened (at least the best one). Infill: each open slot accepts the leading run of its confident positions, at least one
a forward, then redrafts the rest given what it accepted. A finished group is appended to the feed order.

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

from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.events import feed_order
from dllm_rl.records.types import Prompts
from samplers.loop.sampling import TOKEN, uniform
from tests.samplers.plain.record import Recorder, Written, is_finished
from tests.samplers.plain.statistics import entropy, log_odds, pick


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSampler:
    """slot_threshold opens slots, token_threshold accepts positions inside; both are top-token probabilities."""

    name: ClassVar[str] = "slots"
    families: ClassVar[tuple[str, ...]] = ("slot",)
    temperature: float = 1.0
    slot_threshold: float = 0.6
    token_threshold: float = 0.3

    @torch.no_grad()
    def generate(self, policy: BasePolicy, prompts: Prompts, *, seed: int) -> Written:
        """Sample one completion a row. Raises ConfigError where the canvas is not a whole number of slots."""
        size, length = policy.facts.slot_size, policy.facts.canvas_length
        if length % size:
            raise ConfigError(f"a canvas of {length} columns is not a whole number of slots of {size}")
        canvas = policy.empty_canvas(len(prompts.ids))
        is_masked = torch.ones_like(canvas, dtype=torch.bool)
        record = Recorder(canvas, keeps_states=True, keeps_order=True)
        num_slots = length // size
        rank = torch.full((len(canvas), num_slots), num_slots + length, dtype=torch.long)
        is_open = torch.zeros_like(rank, dtype=torch.bool)
        step = 0
        while (alive := ~is_finished(canvas, is_masked, policy.canvas.eos_id)).any():
            rows = alive.nonzero().squeeze(1)
            order = feed_order(rank, size, length)
            logits = policy.logits(prompts.rows(rows), canvas[rows], order=order[rows])
            record.count(len(rows), prompts.ids.shape[1] + length)
            confidence = log_odds(logits).sigmoid()
            is_open[rows] = self._plan(confidence, is_masked[rows], is_open[rows], size)
            accepted = self._accept(confidence, is_masked[rows], is_open[rows], size)
            noise = uniform(seed, prompts.row_ids[rows], torch.arange(length), step, TOKEN)
            tokens, log_probs = pick(logits, self.temperature, noise)
            where = torch.zeros_like(is_masked)
            where[rows] = accepted
            canvas[rows] = torch.where(accepted, tokens, canvas[rows])
            is_masked &= ~where
            uncertainty = entropy(logits, self.temperature)
            record.commit(where, step, _rows(log_probs, rows, canvas), _rows(uncertainty, rows, canvas))
            _append_finished(rank, is_open, is_masked, size, step)
            record.state(canvas, order)
            step += 1
        return record.finish(policy, canvas)

    def _plan(
        self, confidence: Float[Tensor, "b l"], is_masked: Bool[Tensor, "b l"], is_open: Bool[Tensor, "b j"], size: int
    ) -> Bool[Tensor, "b j"]:
        """Rows with no open slot open the confident ones."""
        first = confidence.unflatten(1, (-1, size))[:, :, 0]
        is_free = is_masked.unflatten(1, (-1, size)).all(dim=2)
        score = first.masked_fill(~is_free, -1.0)
        best = torch.zeros_like(is_free).scatter(1, score.argmax(dim=1, keepdim=True), True)
        planned = is_free & ((score > self.slot_threshold) | best)
        return torch.where(is_open.any(dim=1, keepdim=True), is_open, planned)

    def _accept(
        self, confidence: Float[Tensor, "b l"], is_masked: Bool[Tensor, "b l"], is_open: Bool[Tensor, "b j"], size: int
    ) -> Bool[Tensor, "b l"]:
        """In each open slot: the leading run of masked positions that are confident, the first one always."""
        masked = is_masked.unflatten(1, (-1, size))
        index = masked.long().cumsum(dim=2)
        is_good = (confidence.unflatten(1, (-1, size)) > self.token_threshold) | (index == 1)
        run = (is_good | ~masked).long().cumprod(dim=2).bool()
        return (run & masked & is_open[:, :, None]).flatten(1)


def _append_finished(
    rank: Int[Tensor, "b j"], is_open: Bool[Tensor, "b j"], is_masked: Bool[Tensor, "b l"], size: int, step: int
) -> None:
    """Where all open slots of a row are filled, they join the feed order after what is already committed."""
    is_filled = ~is_masked.unflatten(1, (-1, size)).any(dim=2)
    group_done = is_open.any(dim=1) & (is_filled | ~is_open).all(dim=1)
    joins = is_open & group_done[:, None]
    rank[joins] = step
    is_open &= ~joins


def _rows(values: Tensor, rows: Tensor, canvas: Tensor) -> Tensor:
    full = torch.zeros(canvas.shape)
    full[rows] = values
    return full
