"""The slot family (ReFusion 2512.13586): causal attention over a feed order of slots, the committed ones first.

Tokens keep their true positions. Logits at MASK are unshifted (the draft distribution, which samplers sample from and
objectives score); inside clean slots the warm start also learns the next token.

Legend: b rows, l canvas, n slots, k views, c asked positions, t fed tokens, s cached keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.policies.attention import Causal, Reading
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.feed import Feed, Tokens, neighbours, prompt_tokens
from dllm_rl.policies.interface import empty_keys
from dllm_rl.policies.masked import MaskedProcess
from dllm_rl.policies.process import one_a_stratum
from dllm_rl.policies.scoring import cross_entropy
from dllm_rl.records.events import feed_order
from dllm_rl.records.types import Prompts, Rollouts
from dllm_rl.registry import register

if TYPE_CHECKING:
    from dllm_rl.training.warmstart import Batch

# Of the warm start: share of hidden slots with a revealed prefix, and weight of the next-token loss in clean slots.
REVEALED_SHARE, NEXT_TOKEN_WEIGHT = 0.3, 0.1


@dataclass(slots=True, kw_only=True)
class SlotCache:
    """Keys and values of the prompt and of the slots that are settled, which no later one changes.

    Attributes:
        places: Where each key stands in [prompt, canvas in feed order]; -1 where it only fills up a row.
        kept: How many canvas tokens of each row are held.
        settled: How many will not change any more; those that are not held yet are from the next forward on.
    """

    keys: Any
    places: Int[Tensor, "b s"]
    kept: Int[Tensor, " b"]
    settled: Int[Tensor, " b"]

    @classmethod
    def of_prompts(cls, keys: Any, prompts: Prompts) -> SlotCache:
        """Return the cache that holds the prompts alone."""
        none = torch.zeros(len(prompts.ids), dtype=torch.long)
        return cls(keys=keys, places=torch.arange(prompts.ids.shape[1]).expand_as(prompts.ids), kept=none, settled=none)

    def select(self, which: Bool[Tensor, " b"]) -> None:
        """Keep these rows alone."""
        index = which.nonzero().squeeze(1)
        self.keys.batch_select_indices(index.to(self.keys.layers[0].keys.device))
        self.places, self.kept, self.settled = self.places[index], self.kept[index], self.settled[index]

    def num_fed(self, length: int) -> int:
        """How many tokens of a row the next forward reads, of a canvas of this length."""
        return int((self.settled - self.kept).max() + (length - self.settled).max())


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotProcess(MaskedProcess):
    """Whole slots become MASK; clean slots are fed first, in random order, then the others.

    Attributes:
        slot_size: Tokens of a slot.
    """

    family: ClassVar[str] = "slot"
    is_mean_over_masks: ClassVar[bool] = False

    slot_size: int

    @property
    def unit_size(self) -> int:
        """Columns of a slot."""
        return self.slot_size

    def natural_order(self, rollouts: Rollouts) -> Int[Tensor, "1 b l"]:
        """Return the feed order that leaves the canvas as it is."""
        ids = rollouts.completion_ids
        return torch.arange(ids.shape[1], device=ids.device).expand(1, *ids.shape)

    def feed_order(
        self, is_last: Bool[Tensor, "k b n"], length: int, generator: torch.Generator
    ) -> Int[Tensor, "k b l"]:
        """Return clean slots in random order, then hidden ones (and those not editable) in natural order."""
        keys = torch.rand(is_last.shape, generator=generator, device=generator.device).to(is_last.device)
        natural = 1.0 + torch.arange(is_last.shape[-1], device=is_last.device)
        keys = torch.where(is_last, natural, keys)
        return keys.repeat_interleave(self.slot_size, dim=-1)[..., :length].argsort(dim=-1, stable=True)

    def warm_start_loss(self, policy: BasePolicy, batch: Batch, generator: torch.Generator) -> Float[Tensor, ""]:
        """Return the loss of the masked family over whole slots in feed order, plus the next token in clean slots.

        Some of the hidden slots have a revealed prefix.
        """
        size, (rows, length) = self.slot_size, batch.canvas.shape
        num_slots = length // size
        quota = 1 + (one_a_stratum(rows, generator) * num_slots).long().clamp(max=num_slots - 1)
        rank = torch.rand(rows, num_slots, generator=generator).argsort(dim=1).argsort(dim=1)
        is_hidden = rank < quota[:, None]
        revealed = torch.randint(0, size, (rows, num_slots), generator=generator)
        revealed = revealed * (torch.rand(rows, num_slots, generator=generator) < REVEALED_SHARE)
        offset = torch.arange(size)
        hidden = (is_hidden[:, :, None] & (offset >= revealed[:, :, None])).flatten(1)
        order = feed_order(torch.where(is_hidden, num_slots, rank), size, length)
        canvas = batch.canvas.masked_fill(hidden, self.mask_id)
        inside = (~is_hidden[:, :, None] & (offset < size - 1)).flatten(1)
        learned = hidden | inside if policy.reads_in_tiles else None
        read = policy.score(replace(Feed.of(batch.prompts, canvas), order=order), scored=learned)

        def loss(where: Bool[Tensor, "b l"], targets: Int[Tensor, "b l"]) -> Float[Tensor, ""]:
            own = read[where][None] if learned is None else read[:, where[learned]]
            return cross_entropy(policy, own, targets[where])

        draft = loss(hidden, batch.canvas)
        if not inside.any():
            return draft
        return draft + NEXT_TOKEN_WEIGHT * loss(inside, batch.canvas.roll(-1, dims=1))


@register("policy", "slot")
class SlotPolicy(BasePolicy):
    """Like masked, but each slot reads only the prompt and what stands before it in the feed order."""

    family: ClassVar[str] = "slot"
    usual_sampler: ClassVar[str] = "slots"
    own_facts: ClassVar[frozenset[str]] = frozenset({"slot_size", "is_shifted"})
    needs_mask: ClassVar[bool] = True

    def make_process(self) -> SlotProcess:
        """Return the process in which whole slots become MASK."""
        return SlotProcess(**self.masked_facts, slot_size=self.facts.slot_size)

    @property
    def reading(self) -> Reading:
        """Every position reads those fed before it."""
        return Reading(attention=Causal(), is_shifted=self.facts.is_shifted)

    def read_prompts(self, prompts: Prompts) -> Any:
        """Return keys and values of the prompts, which under causal attention do not depend on the canvas."""
        cache = empty_keys()
        last = torch.tensor([prompts.ids.shape[1] - 1])
        self.forward(prompt_tokens(prompts, self.reading.attention), last, cache=cache)
        return cache

    def continue_from(
        self, cache: Any, tokens: Tokens, keep: Int[Tensor, " c"] | Int[Tensor, "b c"], width: int
    ) -> Float[Tensor, "b c v"]:
        """Return logits at these positions; with a `SlotCache` of unsettled ones, and what is settled is kept."""
        if not isinstance(cache, SlotCache):
            return super().continue_from(cache, tokens, keep, width)
        total = tokens.ids.shape[1]
        new = _stretch(width + cache.kept, width + cache.settled)
        rest = _stretch(width + cache.settled, torch.full_like(cache.settled, total))
        places = torch.cat([new, rest], dim=1)
        keys = torch.cat([cache.places, places], dim=1)
        fed = _taken(tokens, places, keys, lookback=self.interface.lookback, pad_id=self.canvas.pad_id)
        at = (keep - (width + cache.settled)[:, None]).clamp(min=0) + new.shape[1]
        logits = self.forward(fed, at, cache=cache.keys)
        cache.keys.crop(-rest.shape[1])
        cache.places = torch.cat([cache.places, new], dim=1)
        cache.kept = cache.settled
        return logits


def _stretch(first: Int[Tensor, " b"], end: Int[Tensor, " b"]) -> Int[Tensor, "b t"]:
    """The places from the first to the end of each row; -1 beyond."""
    place = first[:, None] + torch.arange(int((end - first).max()))
    return place.masked_fill(place >= end[:, None], -1)


def _taken(
    tokens: Tokens, places: Int[Tensor, "b t"], keys: Int[Tensor, "b s"], *, lookback: int, pad_id: int
) -> Tokens:
    """The tokens at these places, which read those of these keys that they read of all; -1 fills a row up.

    Args:
        lookback: See `ModelInterface`.
        pad_id: See `ModelInterface`.
    """
    at, read = places.clamp(min=0), keys.clamp(min=0)
    rows = torch.arange(len(at))[:, None]
    mask = tokens.mask[:, 0].expand(len(at), -1, -1)[rows[..., None], at[..., None], read[:, None]]
    itself = torch.arange(places.shape[1])[:, None] + keys.shape[1] - places.shape[1] == torch.arange(keys.shape[1])
    before = tokens.neighbours
    if before is None and lookback:
        before = neighbours(tokens.ids, lookback, pad_id)
    return replace(
        tokens,
        ids=tokens.ids.gather(1, at),
        mask=((mask & (keys >= 0)[:, None]) | itself)[:, None],
        positions=tokens.positions.gather(1, at),
        columns=tokens.columns.gather(1, at),
        neighbours=None if before is None else before[rows, at],
    )
