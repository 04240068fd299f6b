"""The block family (BD3-LM 2503.09573, SDAR 2510.06303, LLaDA2.0 2512.15745): block by block, MASK to token inside.

A column reads the prompt, all earlier blocks and its own block. So keys and values of a finished block never change,
and are computed once (`BlockCache`), without approximation. A prompt is read as the checkpoint was trained: as a whole,
from the left, or block by block like the canvas (`facts.prompt_blocks`).

log p(completion) is the sum over blocks of log p(block | earlier blocks): each block is hidden on its own, given the
*clean* earlier ones. `score_blocks` scores all blocks in one pass over [prompt, clean canvas, noisy canvas], as BD3-LM
trains.

Legend: b rows, p prompt, l canvas, c scored columns, t fed tokens, s smeared tokens, v vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.policies.attention import BlockCausal, Reading
from dllm_rl.policies.base import BasePolicy, PolicyFacts
from dllm_rl.policies.blocks import Blocks
from dllm_rl.policies.doubled import Doubled
from dllm_rl.policies.feed import Feed, Tokens
from dllm_rl.policies.interface import empty_keys, keys_of_rows
from dllm_rl.policies.masked import MaskedProcess
from dllm_rl.policies.process import one_a_stratum
from dllm_rl.policies.scoring import cross_entropy
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

    Attributes:
        block_size: Columns of a block.
        counts_prompt: blocks are counted from the first token of the prompt, else from the first column.
    """

    family: ClassVar[str] = "block"
    is_mean_over_masks: ClassVar[bool] = False

    block_size: int
    counts_prompt: bool = False

    def blocks(self, prompt_mask: Bool[Tensor, "b p"], size: int | None = None) -> Blocks:
        """Return where the blocks of these rows lie.

        Args:
            size: Default the policy's.
        """
        size, real = size or self.block_size, prompt_mask.sum(dim=1)
        return Blocks(size=size, offset=real % size if self.counts_prompt else torch.zeros_like(real))

    def parts(self, rollouts: Rollouts) -> Bool[Tensor, "bj m"]:
        """Return the columns block by block."""
        return self.blocks(rollouts.prompt_mask).split(self.units(rollouts)).flatten(0, 1)

    def joined(self, rollouts: Rollouts, parts: Shaped[Tensor, "k bj m"]) -> Shaped[Tensor, "k b l"]:
        """Return what stands block by block, as columns."""
        by_row = parts.unflatten(1, (rollouts.num_rows, -1))
        return self.blocks(rollouts.prompt_mask).join(by_row, rollouts.completion_ids.shape[1])

    def reachable(self, is_open: Bool[Tensor, "b l"], prompt_mask: Bool[Tensor, "b p"]) -> Bool[Tensor, "b l"]:
        """Return the columns up to the end of the first block that has an open one."""
        block = self.blocks(prompt_mask).number(torch.arange(is_open.shape[1], device=is_open.device))
        first = block.gather(1, is_open.long().argmax(dim=1, keepdim=True))
        return (block <= first) | ~is_open.any(dim=1, keepdim=True)

    def unscored_from(self, rollouts: Rollouts, chosen: Bool[Tensor, "b l"]) -> Int[Tensor, " b"]:
        """Return the end of the block that the chosen positions lie in. Raises ConfigError where these are several."""
        blocks = self.blocks(rollouts.prompt_mask)
        block = blocks.number(torch.arange(chosen.shape[1]))
        first = torch.where(chosen, block, chosen.shape[1]).amin(dim=1)
        last = torch.where(chosen, block, 0).amax(dim=1)
        if (first < last).any():
            raise ConfigError(
                "under a grammar the draws of one step are scored together, and a view merges steps of several blocks. "
                "Use an objective that replays single steps (such as cj_grpo), or set decoding.grammar to evaluation."
            )
        return (last + 1) * self.block_size - blocks.offset

    def warm_start_loss(self, policy: BasePolicy, batch: Batch, generator: torch.Generator) -> Float[Tensor, ""]:
        """Return the cross-entropy at n ~ U{1..size} hidden positions of each block, given the clean blocks before it.

        The size is one of `facts.block_sizes`, sampled for the batch. Blocks behind that of EOS are never sampled, and
        not learned.
        """
        assert isinstance(policy, BlockPolicy)
        rows, length = batch.canvas.shape
        sizes = policy.facts.block_sizes or (self.block_size,)
        size = sizes[int(torch.randint(len(sizes), (), generator=generator))]
        blocks = self.blocks(batch.prompts.mask, size)
        num_blocks = blocks.count(length)
        # Places of the first block that the prompt has are never hidden.
        in_prompt = torch.arange(num_blocks * size).view(num_blocks, size) < blocks.offset[:, None, None]
        num_places = (~in_prompt).sum(dim=2)
        quota = one_a_stratum(rows * num_blocks, generator).view(rows, num_blocks) * num_places
        keys = torch.rand(rows, num_blocks, size, generator=generator).masked_fill(in_prompt, 2.0)
        rank = keys.argsort(dim=2).argsort(dim=2)
        ends = (batch.canvas == self.eos_id).long().argmax(dim=1) + blocks.offset
        is_learned = torch.arange(num_blocks) <= (ends // size)[:, None]
        is_drawn = rank < 1 + torch.minimum(quota.long(), num_places - 1)[..., None]
        hidden = blocks.join(is_drawn & is_learned[..., None], length)
        columns = hidden.any(dim=0).nonzero().squeeze(1)
        noisy = batch.canvas.masked_fill(hidden, self.mask_id)
        feed, where = Feed.of(batch.prompts, noisy), hidden[:, columns]
        scored = where if policy.reads_in_tiles else None
        read = policy.score_blocks(feed, batch.canvas, columns, block_size=size, scored=scored)
        return cross_entropy(policy, read if scored is not None else read[where][None], batch.canvas[:, columns][where])


@register("policy", "block")
class BlockPolicy(BasePolicy):
    """Masked inside a block, left to right across blocks of `facts.block_size` columns; the last may be shorter."""

    family: ClassVar[str] = "block"
    usual_sampler: ClassVar[str] = "threshold"
    own_facts: ClassVar[frozenset[str]] = frozenset(
        {"block_size", "block_sizes", "is_prompt_causal", "prompt_blocks", "is_shifted"}
    )
    needs_mask: ClassVar[bool] = True
    constrains_whole_canvas: ClassVar[bool] = False

    def __init__(self, model: torch.nn.Module, tokenizer: Any, facts: PolicyFacts) -> None:
        super().__init__(model, tokenizer, facts)
        if facts.block_size < 1:
            raise ConfigError(f"block_size={facts.block_size}: a block must have at least one column.")
        if facts.prompt_blocks and facts.is_prompt_causal:
            raise ConfigError(
                f"is_prompt_causal was given with prompt_blocks={facts.prompt_blocks}; a prompt is read token by token "
                "or block by block. Leave one of them out."
            )

    @property
    def reading(self) -> Reading:
        """A column reads the prompt, all earlier blocks and its own.

        With shifted logits a block's first column is predicted where the block before it ends, which does not see it.
        """
        return Reading(attention=self._attention(self.facts.block_size), is_shifted=self.facts.is_shifted)

    def _attention(self, size: int) -> BlockCausal:
        facts = self.facts
        return BlockCausal(block_size=size, is_prompt_causal=facts.is_prompt_causal, prompt_blocks=facts.prompt_blocks)

    def make_process(self) -> BlockProcess:
        """Return the process in which columns become MASK, block by block."""
        counts_prompt = self.facts.prompt_blocks == "from_prompt"
        return BlockProcess(**self.masked_facts, block_size=self.facts.block_size, counts_prompt=counts_prompt)

    def blocks(self, prompt_mask: Bool[Tensor, "b p"], size: int | None = None) -> Blocks:
        """Return where the blocks of these rows lie.

        Args:
            size: Default the policy's.
        """
        assert isinstance(self.process, BlockProcess)
        return self.process.blocks(prompt_mask, size)

    def alignment(self, prompts: Prompts) -> Int[Tensor, " b"]:
        """Return how many tokens of each prompt lie in the first block."""
        return self.blocks(prompts.mask).offset

    def num_kept(self, width: int, start: int) -> int:
        """Return how much of [prompt, canvas] a cache holds while the block that begins at column `start` is written.

        With shifted logits what stands just before the block is fed again, since the first column is predicted there.
        """
        return max(width + start - int(self.facts.is_shifted), 0)

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
        # Where the canvas begins, a position is the number of real tokens before it.
        real = tokens.positions[:, width, None]
        blocks = self.blocks(torch.arange(int(real.max())) < real)
        start = blocks.start(int(keep.min()) + int(self.facts.is_shifted) - width)
        end, first, kept = min(width + start + size, total), cache.length, self.num_kept(width, start)
        assert first <= kept and int(keep.max()) < end, "with a cache, blocks are read one by one, left to right"
        fed = tokens.between(first, end, mask=tokens.mask[:, :, first:end, :end])
        output = self.forward(fed, keep - first, cache=cache.keys)
        cache.keys.crop(kept - end)
        cache.length = kept
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

        Args:
            feed: Prompts with the noisy canvases.
            block_size: Default the policy's.
            scored: See `score`.
        """
        size = block_size or self.facts.block_size
        doubled = Doubled.of(feed, clean, columns, self.blocks(feed.prompt_mask, size))
        tokens = doubled.tokens(self._attention(size), lookback=self.interface.lookback, pad_id=self.canvas.pad_id)
        keep = doubled.places_before(columns) if self.facts.is_shifted else doubled.places(columns)
        return self.forward(tokens, keep, scored=scored)

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
