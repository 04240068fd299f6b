"""The block family (BD3-LM 2503.09573, SDAR 2510.06303, LLaDA2.0 2512.15745): block by block, MASK to token inside.

A column reads the prompt, all earlier blocks and its own block. So keys and values of a finished block never change,
and are computed once (`BlockCache`), without approximation.

log p(completion) is the sum over blocks of log p(block | earlier blocks): each block is hidden on its own, given the
*clean* earlier ones. `score_blocks` scores all blocks in one pass over [prompt, clean canvas, noisy canvas], as BD3-LM
trains.

Legend: b rows, p prompt, l canvas, c scored columns, t fed tokens, s smeared tokens, v vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.policies.attention import BlockCausal, Reading, readable
from dllm_rl.policies.base import BasePolicy, PolicyFacts
from dllm_rl.policies.feed import Feed, Tokens, empty_keys, keys_of_rows, neighbours, prompt_positions
from dllm_rl.policies.masked import MaskedProcess
from dllm_rl.policies.process import one_a_stratum
from dllm_rl.records.types import Prompts, Rollouts, Views
from dllm_rl.registry import register

if TYPE_CHECKING:
    from dllm_rl.training.warmstart import Batch


@dataclass(slots=True, kw_only=True)
class BlockCache:
    """Keys and values of what no longer changes: the first `length` of [prompt, canvas]. Grows as blocks are read."""

    keys: Any
    length: int = 0

    def rows(self, index: Int[Tensor, " n"]) -> BlockCache:
        """Return a copy with these rows."""
        return BlockCache(keys=keys_of_rows(self.keys, index), length=self.length)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockProcess(MaskedProcess):
    """Each block is hidden on its own and has levels of its own; a view hides a part of every block.

    So the ELBO is the sum over blocks of the ELBO of log p(block | earlier blocks) (BD3-LM, 2503.09573).

    block_size: columns of a block.
    """

    family: ClassVar[str] = "block"
    is_mean_over_masks: ClassVar[bool] = False

    block_size: int

    def parts(self, member: Bool[Tensor, "b n"]) -> Bool[Tensor, "bj m"]:
        """Return the columns block by block."""
        return F.pad(member, (0, -member.shape[1] % self.block_size)).unflatten(1, (-1, self.block_size)).flatten(0, 1)

    def reachable(self, is_open: Bool[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
        """Return the columns up to the end of the first block that has an open one."""
        first = is_open.long().argmax(dim=1, keepdim=True) // self.block_size
        block = torch.arange(is_open.shape[1], device=is_open.device) // self.block_size
        return (block <= first) | ~is_open.any(dim=1, keepdim=True)

    def unscored_from(self, chosen: Bool[Tensor, "b l"]) -> Int[Tensor, " b"]:
        """Return the end of the block that the chosen positions lie in. Raises ConfigError where these are several."""
        block = torch.arange(chosen.shape[1]) // self.block_size
        first = torch.where(chosen, block, chosen.shape[1]).amin(dim=1)
        last = torch.where(chosen, block, 0).amax(dim=1)
        if (first < last).any():
            raise ConfigError(
                "under a grammar the draws of one step are scored together, and a view merges steps of several blocks. "
                "Use an objective that replays single steps (such as cj_grpo), or set decoding.grammar to evaluation."
            )
        return (last + 1) * self.block_size

    def warm_start_loss(self, policy: BasePolicy, batch: Batch, generator: torch.Generator) -> Float[Tensor, ""]:
        """Return the cross-entropy at n ~ U{1..size} hidden positions of each block, given the clean blocks before it.

        The size is one of `facts.block_sizes`, sampled for the batch. Blocks behind that of EOS are never sampled, and
        not learned.
        """
        assert isinstance(policy, BlockPolicy)
        rows, length = batch.canvas.shape
        sizes = policy.facts.block_sizes or (self.block_size,)
        size = sizes[int(torch.randint(len(sizes), (), generator=generator))]
        num_blocks = -(-length // size)
        quota = one_a_stratum(rows * num_blocks, generator).view(rows, num_blocks) * size
        rank = torch.rand(rows, num_blocks, size, generator=generator).argsort(dim=2).argsort(dim=2)
        ends = (batch.canvas == self.eos_id).long().argmax(dim=1) // size
        is_learned = torch.arange(num_blocks) <= ends[:, None]
        is_drawn = rank < 1 + quota.long().clamp(max=size - 1)[..., None]
        hidden = (is_drawn & is_learned[..., None]).flatten(1)[:, :length]
        columns = hidden.any(dim=0).nonzero().squeeze(1)
        noisy = batch.canvas.masked_fill(hidden, self.mask_id)
        logits = policy.score_blocks(Feed.of(batch.prompts, noisy), batch.canvas, columns, block_size=size)
        where = hidden[:, columns]
        return F.cross_entropy(logits[where], batch.canvas[:, columns][where])


@register("policy", "block")
class BlockPolicy(BasePolicy):
    """Masked inside a block, left to right across blocks of `facts.block_size` columns; the last may be shorter."""

    family: ClassVar[str] = "block"
    usual_sampler: ClassVar[str] = "threshold"
    own_facts: ClassVar[frozenset[str]] = frozenset({"block_size", "block_sizes", "is_prompt_causal", "is_shifted"})
    needs_mask: ClassVar[bool] = True
    constrains_whole_canvas: ClassVar[bool] = False

    def __init__(self, model: torch.nn.Module, tokenizer: Any, facts: PolicyFacts) -> None:
        super().__init__(model, tokenizer, facts)
        if facts.block_size < 1:
            raise ConfigError(f"block_size={facts.block_size}: a block must have at least one column.")
        if facts.is_shifted:
            raise ConfigError(
                "is_shifted reads a block's first column in the block before it, which does not see the block. "
                "The block family needs unshifted logits."
            )

    @property
    def reading(self) -> Reading:
        """A column reads the prompt, all earlier blocks and its own."""
        attention = BlockCausal(block_size=self.facts.block_size, is_prompt_causal=self.facts.is_prompt_causal)
        return Reading(attention=attention)

    def make_process(self) -> BlockProcess:
        """Return the process in which columns become MASK, block by block."""
        return BlockProcess(**self.masked_facts, block_size=self.facts.block_size)

    def read_prompts(self, prompts: Prompts) -> BlockCache:
        """Return an empty cache: the first block's first forward reads the prompts too."""
        return BlockCache(keys=empty_keys())

    def continue_from(
        self, cache: BlockCache, tokens: Tokens, keep: Int[Tensor, " c"] | Int[Tensor, "b c"], width: int
    ) -> Float[Tensor, "b c v"]:
        """Feed what is not cached up to the end of the one block that `keep` lies in; keep all that stands before it.

        So a finished block is fed once more, in the first step of the next block, and never again.
        """
        size, total = self.facts.block_size, tokens.ids.shape[1]
        start = width + int((keep.min() - width) // size) * size
        end, first = min(start + size, total), cache.length
        assert first <= start and int(keep.max()) < end, "with a cache, blocks are read one by one, left to right"
        fed = tokens.between(first, end, mask=tokens.mask[:, :, first:end, :end])
        output = self.forward(fed, keep - first, cache=cache.keys)
        cache.keys.crop(start - end)
        cache.length = start
        return output

    def score_blocks(
        self,
        feed: Feed,
        clean: Int[Tensor, "b l"],
        columns: Int[Tensor, " c"],
        *,
        block_size: int | None = None,
        scored: Bool[Tensor, "b c"] | None = None,
    ) -> Float[Tensor, "b c v"] | Float[Tensor, "1 n v"]:
        """Return float32 logits of noisy columns (sorted), each given its noisy block and the clean blocks before it.

        Only the blocks of these columns, and the clean ones before the last of them, are fed.

        feed: prompts with the noisy canvases.
        block_size: default the policy's.
        scored: see `score`.
        """
        size, width = block_size or self.facts.block_size, feed.width
        every = torch.arange(clean.shape[1], device=columns.device)
        hidden = every[torch.isin(every // size, columns // size)]
        known = every[: hidden[-1] // size * size]
        both = torch.cat([known, hidden])
        ids = torch.cat([feed.prompt_ids, clean[:, known], feed.canvas[:, hidden]], dim=1)
        visible = torch.cat([feed.prompt_mask, torch.ones_like(ids[:, width:], dtype=torch.bool)], dim=1)
        real = feed.prompt_mask.sum(dim=1, keepdim=True)
        tokens = Tokens(
            ids=ids,
            mask=readable(visible, self._doubled_mask(width, known, hidden, size)),
            positions=torch.cat([prompt_positions(feed.prompt_mask), real + both], dim=1),
            columns=torch.cat([torch.zeros_like(feed.prompt_ids), (both + 1).expand(len(clean), -1)], dim=1),
            neighbours=self._doubled_neighbours(feed, clean, known, hidden, size),
        )
        keep = width + len(known) + torch.searchsorted(hidden, columns)
        return self.forward(tokens, keep, scored=scored)

    def _doubled_mask(
        self, width: int, known: Int[Tensor, " n"], hidden: Int[Tensor, " m"], size: int
    ) -> Bool[Tensor, "t t"]:
        """Clean columns read clean blocks up to their own; noisy ones read earlier clean blocks and their noisy own."""
        attention = BlockCausal(block_size=size, is_prompt_causal=self.facts.is_prompt_causal)
        rank = torch.cat([attention.rank(width, known), hidden // size])
        is_noisy = torch.arange(len(rank), device=rank.device) >= width + len(known)
        same = rank[None, :] == rank[:, None]
        earlier = (rank[None, :] < rank[:, None]) | (same & ~is_noisy[:, None])
        return torch.where(is_noisy[None, :], same & is_noisy[:, None], earlier)

    def _doubled_neighbours(
        self, feed: Feed, clean: Int[Tensor, "b l"], known: Int[Tensor, " n"], hidden: Int[Tensor, " m"], size: int
    ) -> Int[Tensor, "b t s"]:
        """The tokens before each one: noisy inside a noisy block, clean before it."""
        count, width = self.interface.lookback, feed.width
        before = neighbours(torch.cat([feed.prompt_ids, clean], dim=1), count, self.canvas.pad_id)
        inside = neighbours(torch.cat([feed.prompt_ids, feed.canvas], dim=1), count, self.canvas.pad_id)
        same_block = hidden[:, None] % size > torch.arange(count, device=hidden.device)
        of_noisy = torch.where(same_block, inside[:, width + hidden], before[:, width + hidden])
        return torch.cat([before[:, : width + len(known)], of_noisy], dim=1)

    def view_feed(self, rollouts: Rollouts, view: Views) -> Feed:
        """Return a feed that reads the completion's earlier blocks, where the view is read natively."""
        feed = super().view_feed(rollouts, view)
        return feed if view.reading is not None else replace(feed, clean=rollouts.completion_ids)

    def score(
        self,
        feed: Feed,
        *,
        columns: Int[Tensor, " c"] | Int[Tensor, "b c"] | None = None,
        reading: Reading | None = None,
        cache: Any = None,
        scored: Bool[Tensor, "b c"] | None = None,
    ) -> Float[Tensor, "b c v"] | Float[Tensor, "1 n v"]:
        """Return logits as `BasePolicy.score`; block by block where the feed says what stands clean before each."""
        if feed.clean is None:
            return super().score(feed, columns=columns, reading=reading, cache=cache, scored=scored)
        asked = torch.arange(feed.clean.shape[1]) if columns is None else columns
        return self.score_blocks(feed, feed.clean, asked, scored=scored)
