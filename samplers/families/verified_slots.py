"""Slots with verification, as published (ReFusion, 2512.13586): drafts are accepted by their next-token probability.

Plan: one forward over the committed slots and the masked ones; slots whose drafted first token is confident are opened
(at least the best one). Verify: the drafts are fed as if they were committed, one slot after another; a token is
accepted whose probability given everything before it passes the threshold, up to the first that is not. Whole accepted
slots are committed. Where there is none, the open slots go on side by side, each given the committed ones alone: what
is not accepted is drafted anew, then verified, at least one token each time, until all are full. They are committed
together with the keys and values that they have then, in which they have not read one another; this approximation is
the paper's. A slot's first token is never verified.

Behind the first EOS nothing is written. Slots in front of it are: the public code may drop some of them, where EOS is
found while slots go on side by side.

Legend: b rows, n rows of a forward, t fed tokens, m work tokens, v vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.feed import Tokens, prompt_positions
from dllm_rl.policies.slot import SlotCache
from dllm_rl.records.types import Completions, Prompts
from samplers.loop.record import Recorder
from samplers.loop.sampling import TOKEN, entropy, pick, uniform_at

if TYPE_CHECKING:
    from samplers.families.slots import SlotSampler

# The lane of tokens that read everything fed before them.
CHAIN = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Tokens in the order in which they are fed.

    Attributes:
        columns, tokens: Canvas column and id of each.
        group: How often something had been committed before; a token reads all of earlier groups.
        lane: Inside a group it reads those before it in its lane.
    """

    columns: Int[Tensor, " m"]
    tokens: Int[Tensor, " m"]
    group: Int[Tensor, " m"]
    lane: Int[Tensor, " m"]

    def __add__(self, other: Line) -> Line:
        return Line(
            columns=torch.cat([self.columns, other.columns]),
            tokens=torch.cat([self.tokens, other.tokens]),
            group=torch.cat([self.group, other.group]),
            lane=torch.cat([self.lane, other.lane]),
        )

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def reads(self) -> Bool[Tensor, "m m"]:
        """Which tokens each one reads."""
        place = torch.arange(len(self))
        is_before = place <= place[:, None]
        same = (self.group == self.group[:, None]) & (self.lane == self.lane[:, None])
        return (self.group < self.group[:, None]) | (same & is_before)


@dataclass(slots=True, kw_only=True)
class Draft:
    """Slots that are being written.

    Attributes:
        slots: Their numbers, rising.
        tokens: What is drafted.
        is_accepted: A leading run in each slot.
        log_probs, entropy: Of the draws.
    """

    slots: Int[Tensor, " j"]
    tokens: Int[Tensor, "j m"]
    is_accepted: Bool[Tensor, "j m"]
    log_probs: Float[Tensor, "j m"]
    entropy: Float[Tensor, "j m"]

    def first(self, count: int) -> Draft:
        """The first of these slots."""
        return Draft(
            slots=self.slots[:count],
            tokens=self.tokens[:count],
            is_accepted=self.is_accepted[:count],
            log_probs=self.log_probs[:count],
            entropy=self.entropy[:count],
        )


Writing = Generator[Line, Float[Tensor, "m v"], None]


class Verified:
    """One batch of canvases. Each row is written on its own; their forwards are taken together."""

    def __init__(self, sampler: SlotSampler, policy: BasePolicy, prompts: Prompts, seed: int) -> None:
        self.sampler, self.policy, self.prompts = sampler, policy, prompts
        canvas = policy.empty_canvas(len(prompts.ids))
        self.record = Recorder(canvas, keeps_states=True)
        self.rows = [Row(self, row, seed) for row in range(len(canvas))]
        self.canvas = canvas

    def run(self) -> Completions:
        """Take forwards until every row is written."""
        size, prompts = self.policy.facts.slot_size, self.prompts
        cache = SlotCache.of_prompts(self.policy.read_prompts(prompts), prompts)
        self.record.count(*prompts.ids.shape)
        writing = [row.write() for row in self.rows]
        asked = {number: next(each) for number, each in enumerate(writing)}
        while asked:
            answers = self._forward(list(asked), list(asked.values()), cache)
            going = {}
            for number, logits in zip(asked, answers, strict=True):
                self.rows[number].num_forwards += 1
                with contextlib.suppress(StopIteration):
                    going[number] = writing[number].send(logits)
            if going and len(going) < len(asked):
                cache.select(torch.tensor([number in going for number in asked]))
            asked = going
        return self.record.finish(
            self.policy,
            self.canvas,
            num_steps=max(row.num_forwards for row in self.rows),
            slot_size=size,
            slot_joined=torch.stack([row.joined for row in self.rows]),
            is_approximate=True,
        )

    def _forward(self, rows: Sequence[int], work: Sequence[Line], cache: SlotCache) -> list[Float[Tensor, "m v"]]:
        """Logits of the work tokens of these rows, fed behind what they have committed."""
        committed = [self.rows[row].committed for row in rows]
        cache.settled = torch.tensor([len(line) for line in committed])
        lines = [line + own for line, own in zip(committed, work, strict=True)]
        tokens = self._tokens(self.prompts.rows(torch.tensor(rows)), lines)
        width, length = self.prompts.ids.shape[1], max(map(len, lines))
        self.record.count(len(rows), cache.num_fed(length))
        most = max(map(len, work))
        keep = (width + cache.settled[:, None] + torch.arange(most)).clamp(max=width + length - 1)
        logits = self.policy.continue_from(cache, tokens, keep, width)
        return [found[: len(own)] for found, own in zip(logits, work, strict=True)]

    def _tokens(self, prompts: Prompts, lines: Sequence[Line]) -> Tokens:
        """Prompts and lines as one stretch, filled up on the right."""
        width, length = prompts.ids.shape[1], max(map(len, lines))
        pad = self.policy.canvas.pad_id

        def filled(parts: Sequence[Tensor], value: int) -> Tensor:
            return torch.stack([F.pad(part, (0, length - len(part)), value=value) for part in parts])

        columns = filled([line.columns for line in lines], 0)
        mask = torch.zeros(len(lines), width + length, width + length, dtype=torch.bool)
        mask[:, :width, :width] = prompts.mask[:, None] & torch.ones(width, width, dtype=torch.bool).tril()
        for row, line in zip(mask, lines, strict=True):
            row[width : width + len(line), width : width + len(line)] = line.reads
        mask[:, width:, :width] = prompts.mask[:, None]
        mask |= torch.eye(width + length, dtype=torch.bool)
        return Tokens(
            ids=torch.cat([prompts.ids, filled([line.tokens for line in lines], pad)], dim=1),
            mask=mask[:, None],
            positions=torch.cat([prompt_positions(prompts.mask), prompts.mask.sum(dim=1)[:, None] + columns], dim=1),
            columns=torch.cat([torch.zeros_like(prompts.ids), columns + 1], dim=1),
            neighbours=self._neighbours(prompts, lines, length),
        )

    def _neighbours(self, prompts: Prompts, lines: Sequence[Line], length: int) -> Int[Tensor, "n t s"] | None:
        """The tokens that each one reads last, the nearest first; None where the model does not ask."""
        count, pad = self.policy.interface.lookback, self.policy.canvas.pad_id
        if not count:
            return None
        width = prompts.ids.shape[1]
        found = torch.full((len(lines), width + length, count), pad)
        for row, line in enumerate(lines):
            ids = torch.cat([prompts.ids[row], line.tokens])
            reads = F.pad(line.reads.tril(-1), (width, 0), value=True)
            reads = torch.cat([torch.ones(width, len(ids), dtype=torch.bool).tril(-1), reads])
            place = torch.where(reads, torch.arange(len(ids)), -1).sort(dim=1, descending=True).values
            nearest = F.pad(place, (0, count), value=-1)[:, :count]
            found[row, : len(ids)] = torch.where(nearest >= 0, ids[nearest.clamp(min=0)], pad)
        return found


class Row:
    """How one row is written.

    Attributes:
        committed: What is committed, in feed order.
        joined: The step at which each slot was; larger than any where it never was.
        num_forwards: Forwards that the row took, each a step of it.
    """

    def __init__(self, batch: Verified, row: int, seed: int) -> None:
        facts = batch.policy.facts
        self.batch, self.row, self.seed = batch, row, seed
        self.size, self.length = facts.slot_size, facts.canvas_length
        none = torch.zeros(0, dtype=torch.long)
        self.committed = Line(columns=none, tokens=none, group=none, lane=none)
        self.joined = torch.full((self.length // self.size,), 8 * self.length, dtype=torch.long)
        self.num_forwards = self.num_groups = 0
        self.is_ended = False

    def write(self) -> Writing:
        """Write one serial block after another; behind one with an EOS, none."""
        per_block = (self.batch.sampler.block_length or self.length) // self.size
        for left in torch.arange(self.length // self.size).split(per_block):
            while len(left):
                draft = yield from self._planned(left)
                whole = self._accepted_slots(draft)
                if whole is None:
                    draft = yield from self._side_by_side(draft)
                else:
                    draft = draft.first(whole)
                left = self._commit(draft, left, is_chain=whole is not None)
            if self.is_ended:
                return

    def _planned(self, left: Int[Tensor, " j"]) -> Generator[Line, Tensor, Draft]:
        """Open slots, with the drafts that are accepted."""
        columns = self._columns(left)
        mask_id = torch.full_like(columns, self.batch.policy.process.blank_id)
        logits = yield self._work(columns, mask_id)
        tokens, log_probs, probability = self._drawn(logits, columns)
        first = probability.view(-1, self.size)[:, 0]
        is_open = first > self.batch.sampler.slot_threshold
        if not is_open.any():
            is_open[first.argmax()] = True
        draft = Draft(
            slots=left[is_open],
            tokens=tokens.view(-1, self.size)[is_open],
            is_accepted=torch.ones(int(is_open.sum()), self.size, dtype=torch.bool),
            log_probs=log_probs.view(-1, self.size)[is_open],
            entropy=entropy(logits[None], self.batch.sampler.temperature).view(-1, self.size)[is_open],
        )
        logits = yield self._work(self._columns(draft.slots), draft.tokens.flatten())
        probability = _next_token(logits, draft.tokens.flatten()).view(-1, self.size)
        is_first = torch.arange(self.size) == 0
        draft.is_accepted = _run((probability > self.batch.sampler.token_threshold) | is_first)
        return draft

    def _accepted_slots(self, draft: Draft) -> int | None:
        """How many slots to commit at once: those that are accepted one after another, or up to an EOS; None: none."""
        run = _run(draft.is_accepted.flatten()[None])[0]
        is_end = (draft.tokens.flatten() == self._eos_id) & run
        if is_end.any():
            return int(is_end.long().argmax()) // self.size + 1
        return int(run.sum()) // self.size or None

    def _side_by_side(self, draft: Draft) -> Generator[Line, Tensor, Draft]:
        """Draft and verify what is not accepted, in each slot apart, until all slots in front of an EOS are full."""
        blank = self.batch.policy.process.blank_id
        while not draft.is_accepted.all():
            columns = self._columns(draft.slots)
            lane = draft.slots.repeat_interleave(self.size)
            shown = torch.where(draft.is_accepted, draft.tokens, blank).flatten()
            logits = yield self._work(columns, shown, lane)
            self._redraft(draft, logits, columns)
            logits = yield self._work(columns, draft.tokens.flatten(), lane)
            probability = _next_token(logits, draft.tokens.flatten()).view(-1, self.size)
            is_due = F.pad(draft.is_accepted, (1, 0), value=True)[:, :-1]
            draft.is_accepted = _run((probability > self.batch.sampler.token_threshold) | is_due)
            is_end = (draft.tokens == self._eos_id) & draft.is_accepted
            if is_end.any():
                last = int(is_end.any(dim=1).long().argmax())
                draft = draft.first(last + 1)
                draft.is_accepted[last] = True
        return draft

    def _redraft(self, draft: Draft, logits: Float[Tensor, "m v"], columns: Int[Tensor, " m"]) -> None:
        """Draw anew what is not accepted."""
        tokens, log_probs, _ = self._drawn(logits, columns)
        spread = entropy(logits[None], self.batch.sampler.temperature)
        kept = draft.is_accepted
        draft.tokens = torch.where(kept, draft.tokens, tokens.view_as(draft.tokens))
        draft.log_probs = torch.where(kept, draft.log_probs, log_probs.view_as(draft.log_probs))
        draft.entropy = torch.where(kept, draft.entropy, spread.view_as(draft.entropy))

    def _commit(self, draft: Draft, left: Int[Tensor, " j"], *, is_chain: bool) -> Int[Tensor, " j"]:
        """Commit these slots up to the first EOS, and return those that are still to be written."""
        columns, tokens = self._columns(draft.slots), draft.tokens.flatten()
        is_end = tokens == self._eos_id
        stays = is_end.long().cumsum(dim=0) - is_end.long() == 0
        lane = torch.full_like(columns, CHAIN) if is_chain else draft.slots.repeat_interleave(self.size)
        line = self._work(columns, tokens, lane)
        self.committed += Line(
            columns=line.columns[stays], tokens=tokens[stays], group=line.group[stays], lane=lane[stays]
        )
        self.batch.canvas[self.row, columns[stays]] = tokens[stays]
        self.batch.record.commit_at(
            torch.full_like(columns[stays], self.row),
            columns[stays],
            self.num_forwards - 1,
            tokens[stays],
            draft.log_probs.flatten()[stays],
            draft.entropy.flatten()[stays],
        )
        self.joined[draft.slots] = self.num_forwards - 1
        self.num_groups += 1
        left = left[~torch.isin(left, draft.slots)]
        if is_end.any():
            self.is_ended = True
            left = left[left < draft.slots[-1]]
        return left

    def _work(self, columns: Tensor, tokens: Tensor, lane: Tensor | None = None) -> Line:
        """Tokens that are fed behind what is committed."""
        group = torch.full_like(columns, self.num_groups)
        lane = torch.full_like(columns, CHAIN) if lane is None else lane
        return Line(columns=columns, tokens=tokens, group=group, lane=lane)

    def _drawn(self, logits: Float[Tensor, "m v"], columns: Int[Tensor, " m"]) -> tuple[Tensor, Tensor, Tensor]:
        """A token at each of these columns, its log-probability, and its untempered probability."""
        row_ids = self.batch.prompts.row_ids[self.row].expand(len(columns))
        noise = uniform_at(self.seed, row_ids, columns, self.num_forwards, TOKEN)
        tokens, log_probs = pick(logits, self.batch.sampler.temperature, noise)
        return tokens, log_probs, _probability(logits, tokens)

    def _columns(self, slots: Int[Tensor, " j"]) -> Int[Tensor, " m"]:
        return (slots[:, None] * self.size + torch.arange(self.size)).flatten()

    @property
    def _eos_id(self) -> int:
        return self.batch.policy.canvas.eos_id


def _next_token(logits: Float[Tensor, "m v"], tokens: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Probability of each token by the logits at the token before it; that of the first one is not known, and 1."""
    return F.pad(_probability(logits[:-1], tokens[1:]), (1, 0), value=1.0)


def _probability(logits: Float[Tensor, "m v"], tokens: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Probability of one token a position."""
    return logits.softmax(dim=-1).gather(1, tokens[:, None].to(logits.device)).squeeze(1).cpu()


def _run(is_good: Bool[Tensor, "j m"]) -> Bool[Tensor, "j m"]:
    """The leading run of each slot."""
    return is_good.long().cumprod(dim=1).bool()
