"""Plan-and-infill decoding of slots (ReFusion, 2512.13586); tokens are drawn from the distribution that is recorded.

Plan: one forward over prompt, committed slots in commit order, masked slots; slots whose first token is confident are
opened (at least the best one). Infill: each open slot accepts the leading run of its confident positions, at least one
a forward, then redrafts the rest given what it accepted. A finished group is appended to the feed order.

Under the grammar, tokens that every accepted canvas has at a position count as accepted before anything is drawn there,
and slots that consist of such tokens join the feed order without a draw. Columns behind EOS are never written: they
stay masked and are fed last, as in the warm start.

Departures from the paper, so that the recorded probabilities are exact at any temperature: positions are accepted by
the confidence of the draft distribution before a token is drawn (choose-then-sample), and the separate verifying pass
through the shifted next-token head is not used, unless it is asked for (`samplers.families.verified_slots`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.options import added
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.slot import SlotCache
from dllm_rl.records.canvas import until_first
from dllm_rl.records.events import BEFORE_ALL, feed_order
from dllm_rl.records.types import Completions, Prompts
from dllm_rl.registry import register
from samplers.config import check_count, check_number, check_temperature
from samplers.families.verified_slots import Verified
from samplers.grammar.compile import constraint_of
from samplers.grammar.projection import Keys, Prediction, StepDistribution, project
from samplers.loop.record import ForcedTokens, Recorder, columns_of, is_finished
from samplers.loop.sampling import in_chunks, refuse_given

# Which keys and values a slot sampler keeps.
SlotCacheName = Literal["prompt", "exact"]


@register("sampler", "slots")
@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSampler:
    """Opens slots by the confidence of their first token, and fills them run by run.

    Attributes:
        temperature: Temperature of the draws; 0 takes the most likely tokens.
        slot_threshold: Probability of the best first token from which on a slot is opened.
        token_threshold: Probability of the best token from which on a position of an open slot is accepted.
        grammar: Whether only plans that parse and act on the page's controls can be written.
        block_length: Columns of a serial block, whose slots are all written before a later one is opened (ReFusion's
            `serial_num_blocks` says how many there are); None for one block.
        cache: Which keys and values are kept. `prompt`: those of the prompt. `exact`: those of finished slots, too,
            which are then fed once more and never again; it gives the same up to rounding.
        verification: Drafts are accepted by their probability as next tokens, as the paper has it, which takes twice
            the forwards. What is rejected is drafted anew, so objectives that replay refuse it.
    """

    name: ClassVar[str] = "slots"
    version: ClassVar[int] = 1
    families: ClassVar[tuple[str, ...]] = ("slot",)
    temperature: float = 1.0
    slot_threshold: float = 0.6
    token_threshold: float = 0.3
    grammar: bool = False
    block_length: int | None = added(None)
    cache: SlotCacheName = added("prompt")
    verification: bool = added(default=False)

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        check_number("slot_threshold", self.slot_threshold, least=0, largest=1)
        check_number("token_threshold", self.token_threshold, least=0, largest=1)
        check_count("block_length", self.block_length, "columns of a block")
        if self.cache not in get_args(SlotCacheName):
            raise ConfigError(f"cache={self.cache!r}: give one of {', '.join(get_args(SlotCacheName))}")
        if self.verification and self.grammar:
            raise ConfigError(
                "verification=true takes drafts back, and under grammar=true later draws depend on them. Leave one of "
                "the two out."
            )
        if self.verification and self.cache == "prompt":
            raise ConfigError(
                "verification=true keeps the keys and values of finished slots as they were verified, and "
                "cache='prompt' would compute them again. Set cache: exact."
            )

    @property
    def approximation(self) -> str | None:
        """Why a replay of the draws does not give their probabilities; None where it does."""
        return "takes back drafts that are unlikely as next tokens (verification=true)" if self.verification else None

    @torch.no_grad()
    def generate(self, policy: BasePolicy, prompts: Prompts, *, seed: int) -> Completions:
        """Sample one completion a row. Raises ConfigError where canvas or block are not a whole number of slots."""
        refuse_given(prompts, self.name)
        size, length = policy.facts.slot_size, policy.facts.canvas_length
        if length % size:
            raise ConfigError(f"a canvas of {length} columns is not a whole number of slots of {size}")
        if self.block_length is not None and self.block_length % size:
            raise ConfigError(
                f"block_length={self.block_length} was given; a block is a whole number of slots of {size} columns. "
                f"Give a multiple of {size}."
            )
        driver = Verified if self.verification else _Infilling
        return in_chunks(policy, prompts, lambda part: driver(self, policy, part, seed).run())


class _Infilling:
    """One batch of canvases.

    joined: step at which each slot joined the feed order; larger than any step where it has not.
    is_open: slots that are being filled.
    """

    def __init__(self, sampler: SlotSampler, policy: BasePolicy, prompts: Prompts, seed: int) -> None:
        self.sampler, self.policy, self.prompts, self.seed = sampler, policy, prompts, seed
        self.size, self.length = policy.facts.slot_size, policy.facts.canvas_length
        self.canvas = policy.empty_canvas(len(prompts.ids))
        self.is_masked = torch.ones_like(self.canvas, dtype=torch.bool)
        num_slots = self.length // self.size
        self.joined = torch.full((len(self.canvas), num_slots), num_slots + self.length, dtype=torch.long)
        self.is_open = torch.zeros_like(self.joined, dtype=torch.bool)
        self.constraint = constraint_of(policy, prompts) if sampler.grammar else None
        self.record = Recorder(self.canvas, keeps_states=True, constraint=self.constraint)
        self.forced = ForcedTokens(self.constraint, self.record, writes_padding=False)

    def run(self) -> Completions:
        """Write step after step."""
        prompts, rows = self.prompts, torch.arange(len(self.canvas))
        self._close_step(rows, BEFORE_ALL)
        rows = rows[self._is_unfinished(rows)]
        cache, step = None, 0
        if len(rows):
            cache = self.policy.read_prompts(prompts.rows(rows))
            self.record.count(len(rows), prompts.ids.shape[1])
            if self.sampler.cache == "exact":
                cache = SlotCache.of_prompts(cache, prompts.rows(rows))
        while len(rows):
            self._step(rows, cache, step)
            step += 1
            is_unfinished = self._is_unfinished(rows)
            if cache is not None and is_unfinished.any() and not is_unfinished.all():
                _select(cache, is_unfinished, self.policy.device)
            rows = rows[is_unfinished]
        return self.record.finish(
            self.policy, self.canvas, num_steps=step, slot_size=self.size, slot_joined=self.joined
        )

    def _step(self, rows: Int[Tensor, " n"], cache: Any, step: int) -> None:
        """Plan and infill: one forward, then open slots, accept positions in them and draw there."""
        columns, is_asked = columns_of(self._wanted(rows) if self.constraint is None else self.is_masked[rows])
        distribution = self._distribution(rows, columns, cache, step)
        probability = torch.where(is_asked, distribution.log_odds.sigmoid(), -1.0)
        confidence = probability.new_full((len(rows), self.length), -1.0).scatter(1, columns, probability)
        to_write = self._in_block(self._to_write())[rows]
        self.is_open[rows] = self._opened(confidence, to_write, self.is_open[rows])
        chosen = self._accepted(confidence, to_write, self.is_open[rows]).gather(1, columns) & is_asked
        draw = distribution.draw(chosen, Keys(seed=self.seed, row_ids=self.prompts.row_ids[rows], step=step))
        row = rows[draw.row]
        self.canvas[row, draw.column] = draw.tokens
        self.is_masked[row, draw.column] = False
        self.record.commit_at(row, draw.column, step, draw.tokens, draw.log_probs, draw.entropy)
        self._close_step(rows, step)

    def _distribution(self, rows: Tensor, columns: Tensor, cache: Any, step: int) -> StepDistribution:
        canvas, order = self.canvas[rows], feed_order(self.joined, self.size, self.length)[rows]
        fed = self.length
        if isinstance(cache, SlotCache):
            cache.settled = self.size * (self.joined[rows] < step).sum(dim=1)
            fed = cache.num_fed(self.length)
        logits = self.policy.logits(self.prompts.rows(rows), canvas, columns=columns, order=order, cache=cache)
        self.record.count(len(rows), fed)
        prediction = Prediction(
            logits=logits,
            columns=columns,
            canvas=canvas,
            is_masked=self.is_masked[rows],
            temperature=self.sampler.temperature,
        )
        return project(self.forced.automata(rows), prediction)

    def _is_unfinished(self, rows: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        return ~is_finished(self.canvas, self.is_masked, self.policy.canvas.eos_id)[rows]

    def _wanted(self, rows: Int[Tensor, " n"]) -> Bool[Tensor, "n l"]:
        """The masked positions of open slots; of all slots in rows that must open some."""
        is_open = self.is_open[rows]
        must_open = ~is_open.any(dim=1, keepdim=True)
        wanted = self.is_masked[rows] & (is_open | must_open).repeat_interleave(self.size, dim=1)
        return wanted & self._in_block(self.is_masked)[rows]

    def _in_block(self, to_write: Bool[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
        """Those of the first serial block that has any."""
        if self.sampler.block_length is None:
            return to_write
        block = torch.arange(self.length) // self.sampler.block_length
        return to_write & (block == block[to_write.long().argmax(dim=1)][:, None])

    def _to_write(self) -> Bool[Tensor, "b l"]:
        """The masked positions that may be drawn; under the grammar, where only PAD can stand behind EOS, not those."""
        if self.constraint is None:
            return self.is_masked
        is_end = (self.canvas == self.policy.canvas.eos_id) & ~self.is_masked
        return self.is_masked & until_first(is_end)

    def _opened(
        self, confidence: Float[Tensor, "n l"], to_write: Bool[Tensor, "n l"], is_open: Bool[Tensor, "n j"]
    ) -> Bool[Tensor, "n j"]:
        """Rows with no open slot open the confident ones, judged by their first position to write."""
        masked = self._slots(to_write)
        is_free = masked.any(dim=2)
        place = masked.long().argmax(dim=2, keepdim=True)
        first = self._slots(confidence).gather(2, place).squeeze(2)
        score = first.masked_fill(~is_free, -1.0)
        best = torch.zeros_like(is_free).scatter(1, score.argmax(dim=1, keepdim=True), True)
        planned = is_free & ((score > self.sampler.slot_threshold) | best)
        return torch.where(is_open.any(dim=1, keepdim=True), is_open, planned)

    def _accepted(
        self, confidence: Float[Tensor, "n l"], to_write: Bool[Tensor, "n l"], is_open: Bool[Tensor, "n j"]
    ) -> Bool[Tensor, "n l"]:
        """In each open slot the leading run of confident positions to write, the first one always."""
        masked = self._slots(to_write)
        index = masked.long().cumsum(dim=2)
        is_good = (self._slots(confidence) > self.sampler.token_threshold) | (index == 1)
        run = (is_good | ~masked).long().cumprod(dim=2).bool()
        return (run & masked & is_open[:, :, None]).flatten(1)

    def _close_step(self, rows: Int[Tensor, " n"], step: int) -> None:
        """Write forced tokens; where all open slots of a row are filled, they join the feed order.

        Slots that are full without having been open, which only forced tokens bring about, join at once.
        """
        self.forced.write(rows, self.canvas, self.is_masked, step)
        is_done = ~self._slots(self._to_write()).any(dim=2)
        is_begun = ~self._slots(self.is_masked).all(dim=2)
        is_group_done = self.is_open.any(dim=1) & (is_done | ~self.is_open).all(dim=1)
        closes = self.is_open & is_group_done[:, None]
        joins = is_begun & (closes | (is_done & ~self.is_open & (self.joined > step)))
        self.joined[joins] = step
        self.is_open &= ~closes

    def _slots(self, of_columns: Tensor) -> Tensor:
        """(b, l) to (b, j, size)."""
        return of_columns.unflatten(1, (-1, self.size))


def _select(cache: Any, which: Bool[Tensor, " b"], device: torch.device) -> None:
    """Keep these rows of a cache alone."""
    if isinstance(cache, SlotCache):
        cache.select(which)
    else:
        cache.batch_select_indices(which.nonzero().squeeze(1).to(device))
