"""The block family (BD3-LM 2503.09573, SDAR 2510.06303, LLaDA2.0 2512.15745): block by block, MASK to token inside.

A column reads the prompt, all earlier blocks and its own block. So what is known of a finished block never changes, and
its keys and values are computed once (`BlockCache`), without approximation.

log p(completion) is the sum over blocks of log p(block | earlier blocks): each block is hidden on its own, given the
*clean* earlier ones. `score_blocks` scores all blocks in one pass over [prompt, clean canvas, noisy canvas], as BD3-LM
trains.

Legend: b rows, p prompt, l canvas, c scored columns, t fed tokens, s smeared tokens, v vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy, PolicyFacts
from dllm_rl.policies.terms import Attention, keys_of_rows, last_ids
from dllm_rl.process import ForwardProcess
from dllm_rl.registry import register
from dllm_rl.types import Family, Prompts, Rollouts, Views


@dataclass(slots=True, kw_only=True)
class BlockCache:
    """Keys and values of what no longer changes: the first `length` of [prompt, canvas]. Grows as blocks are read."""

    keys: Any
    length: int = 0

    def rows(self, index: Int[Tensor, " n"]) -> BlockCache:
        """A copy with these rows."""
        return BlockCache(keys=keys_of_rows(self.keys, index), length=self.length)


@register("policy", "block")
class BlockPolicy(BasePolicy):
    """Masked inside a block, left to right across blocks of `facts.block_size` columns; the last may be shorter."""

    family: ClassVar[Family] = "block"
    attention: ClassVar[Attention] = "block_causal"

    def __init__(self, model: torch.nn.Module, tokenizer: Any, facts: PolicyFacts) -> None:
        super().__init__(model, tokenizer, facts)
        if facts.block_size < 1:
            raise ConfigError(f"block_size={facts.block_size} is no length of a block; give 1 or more columns")
        if facts.is_shifted:
            raise ConfigError(
                "is_shifted reads a block's first column in the block before it, which does not see the block. "
                "The block family needs unshifted logits."
            )

    @property
    def process(self) -> ForwardProcess:
        """The forward process that views are drawn from."""
        return replace(super().process, block_size=self.facts.block_size)

    def read_prompts(self, prompts: Prompts) -> BlockCache:
        """An empty cache: the first block's first forward reads the prompts too."""
        return BlockCache(keys=DynamicCache())

    def reads(self, visible: Bool[Tensor, "b t"], width: int, attention: Attention) -> Bool[Tensor, "b 1 t t"]:
        """The prompt, all earlier blocks, and the own block."""
        if attention != "block_causal":
            return super().reads(visible, width, attention)
        rank = self._rank(width, torch.arange(visible.shape[1] - width, device=visible.device), self.facts.block_size)
        return _readable(visible, rank[None, :] <= rank[:, None])

    def _rank(self, width: int, columns: Int[Tensor, " n"], size: int) -> Int[Tensor, " t"]:
        """Of prompt and columns: who reads whom (those of no higher rank). The prompt's are negative."""
        before = torch.arange(-width, 0, device=columns.device)
        prompt = before if self.facts.is_prompt_causal else torch.full_like(before, -1)
        return torch.cat([prompt, columns // size])

    def _after_prompt(
        self, inputs: dict[str, Tensor], keep: Tensor, width: int, cache: BlockCache
    ) -> Float[Tensor, "b n v"]:
        """Feed what is not cached up to the end of the one block that `keep` lies in; keep all that stands before it.

        So a finished block is fed once more, in the first step of the next block, and never again.
        """
        size, total = self.facts.block_size, inputs["input_ids"].shape[1]
        start = width + int((keep.min() - width) // size) * size
        end, first = min(start + size, total), cache.length
        assert first <= start and int(keep.max()) < end, "with a cache, blocks are read one by one, left to right"
        fed = {name: value[:, first:end] for name, value in inputs.items() if name not in ("attention_mask", "time")}
        fed["attention_mask"] = inputs["attention_mask"][:, :, first:end, :end]
        smeared = getattr(self.model.config, "num_smeared", 0)
        if smeared and first:
            fed["previous_ids"] = last_ids(inputs["input_ids"][:, :first], smeared, self.canvas.pad_id)
        output = self._at(fed, keep - first, **self.kept(cache.keys))
        cache.keys.crop(start - end)
        cache.length = start
        return output

    def score_blocks(
        self,
        prompt_ids: Int[Tensor, "b p"],
        prompt_mask: Bool[Tensor, "b p"],
        clean: Int[Tensor, "b l"],
        noisy: Int[Tensor, "b l"],
        columns: Int[Tensor, " c"],
        *,
        block_size: int | None = None,
        scored: Bool[Tensor, "b c"] | None = None,
    ) -> Float[Tensor, "b c v"] | Float[Tensor, "1 n v"]:
        """Float32 logits of noisy columns (sorted), each given its noisy block and the clean blocks before it.

        Only the blocks of these columns, and the clean ones before the last of them, are fed. block_size: default the
        policy's. scored: as in `score`.
        """
        size, width, length = block_size or self.facts.block_size, prompt_ids.shape[1], clean.shape[1]
        every = torch.arange(length, device=columns.device)
        hidden = every[torch.isin(every // size, columns // size)]
        known = every[: hidden[-1] // size * size]
        rank = torch.cat([self._rank(width, known, size), hidden // size])
        is_noisy = torch.arange(len(rank), device=rank.device) >= width + len(known)
        same = rank[None, :] == rank[:, None]
        earlier = (rank[None, :] < rank[:, None]) | (same & ~is_noisy[:, None])
        real = prompt_mask.sum(dim=1, keepdim=True)
        both = torch.cat([known, hidden])
        tokens = torch.cat([prompt_ids, clean[:, known], noisy[:, hidden]], dim=1)
        visible = torch.cat([prompt_mask, torch.ones_like(tokens[:, width:], dtype=torch.bool)], dim=1)
        inputs = {
            "input_ids": tokens,
            "attention_mask": _readable(visible, torch.where(is_noisy[None, :], same & is_noisy[:, None], earlier)),
            "position_ids": torch.cat([(prompt_mask.long().cumsum(1) - 1).clamp(min=0), real + both], dim=1),
        }
        if getattr(self.model.config, "num_columns", 0):
            inputs["column_ids"] = torch.cat([torch.zeros_like(prompt_ids), (both + 1).expand(len(clean), -1)], dim=1)
        if smeared := getattr(self.model.config, "num_smeared", 0):
            before = _before(torch.cat([prompt_ids, clean], dim=1), smeared, self.canvas.pad_id)
            inside = _before(torch.cat([prompt_ids, noisy], dim=1), smeared, self.canvas.pad_id)
            same_block = hidden[:, None] % size > torch.arange(smeared, device=hidden.device)
            of_noisy = torch.where(same_block, inside[:, width + hidden], before[:, width + hidden])
            inputs["previous_ids"] = torch.cat([before[:, : width + len(known)], of_noisy], dim=1)
        keep = width + len(known) + torch.searchsorted(hidden, columns)
        output = self._at(inputs, keep, scored)
        return output.masked_fill(self._banned.to(output.device), -torch.inf)

    def horizon(self, chosen: Bool[Tensor, "b l"]) -> Int[Tensor, " b"]:
        """The end of the block that the chosen positions lie in. Raises ConfigError where they lie in several."""
        block = torch.arange(chosen.shape[1]) // self.facts.block_size
        first = torch.where(chosen, block, chosen.shape[1]).amin(dim=1)
        last = torch.where(chosen, block, 0).amax(dim=1)
        if (first < last).any():
            raise ConfigError(
                "under a grammar the draws of one step are scored together, and a view merges steps of several blocks. "
                "Use an objective that replays single steps (such as cj_grpo), or set decoding.grammar to evaluation."
            )
        return (last + 1) * self.facts.block_size

    def _one_view(self, rollouts: Rollouts, views: Views, index: int) -> Float[Tensor, "b l"]:
        """Native views are read block by block, given the completion's earlier blocks; the others as they stand."""
        is_constrained = rollouts.trajectory is not None and rollouts.trajectory.constraint is not None
        if views.read != "native" or is_constrained:
            return super()._one_view(rollouts, views, index)
        score = views.score[index]
        columns = score.any(dim=0).nonzero().squeeze(1)
        if columns.numel() == 0:
            return torch.zeros(score.shape, dtype=torch.float32)
        targets = rollouts.completion_ids if views.targets is None else views.targets[index]
        prompt = rollouts.prompt_ids if views.prompt_tokens is None else views.prompt_tokens[index]
        logits = self.score_blocks(
            prompt,
            rollouts.prompt_mask,
            rollouts.completion_ids,
            views.tokens[index],
            columns,
            scored=score[:, columns],
        )
        return self.spread_terms(logits[0], targets, rollouts, views, index)


def _readable(visible: Bool[Tensor, "b t"], allowed: Bool[Tensor, "t t"]) -> Bool[Tensor, "b 1 t t"]:
    """Who reads whom, without padding; every query reads itself."""
    return (visible[:, None, None, :] & allowed) | torch.eye(len(allowed), dtype=torch.bool, device=visible.device)


def _before(ids: Int[Tensor, "b t"], count: int, pad_id: int) -> Int[Tensor, "b t s"]:
    """The tokens before each token, the nearest first."""
    padded = torch.nn.functional.pad(ids, (count, 0), value=pad_id)
    return torch.stack([padded[:, count - shift : padded.shape[1] - shift] for shift in range(1, count + 1)], dim=-1)
