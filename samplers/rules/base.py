"""The contract of an unmasking rule: which masked positions a step writes, and which written ones it masks again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy
from dllm_rl.types import Completions, Family, Prompts
from samplers.config import CacheOption, check_options, check_reading
from samplers.loop.chunks import in_chunks
from samplers.loop.context import View, Watcher, Written
from samplers.loop.denoise import Denoising, spread


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmaskingRule:
    """Base of the rules; a rule is one file with `choose`, and `remask` where it takes tokens back.

    num_steps: most denoising steps over the whole canvas; None = as many as it has columns. block_length: semi-
    autoregressive blocks of so many columns; None = one block, or the blocks of the block family (of which others
    must be parts). grammar: only plans that parse and act on the page's controls can be written. cache: which keys and
    values are kept. `exact` those that cannot change (block family); `none` asks for the same with a full forward in
    every step; `prefix` and `dual` are approximate, and for the masked family (2505.22618): in all but a block's first
    step, those of all that stands before the block, or on both sides of it, are what they were in that step. guidance:
    s of l_u + (s + 1)(l_c - l_u), where l_u are the logits without the prompt (2502.09992); 0 asks for none.
    """

    families: ClassVar[tuple[Family, ...]] = ("masked", "block")
    version: ClassVar[int] = 1
    # Whether a step may write nothing in a row. Such a rule chooses before the model is asked, and takes nothing back.
    may_wait: ClassVar[bool] = False
    temperature: float = 1.0
    num_steps: int | None = 32
    block_length: int | None = None
    grammar: bool = False
    cache: CacheOption = "exact"
    guidance: float = 0.0

    def __post_init__(self) -> None:
        check_options(self)
        check_reading(self.cache, self.block_length, self.guidance)
        if self.may_wait and self.remasks:
            raise ConfigError(f"{type(self).__name__} has `remask`, so its steps may write nothing without may_wait")

    def choose(self, view: View) -> Bool[Tensor, "b n"]:
        """Which open positions are written now. Where a row has none, the loop writes its most confident one."""
        raise NotImplementedError

    def remask(self, written: Written) -> Bool[Tensor, "b l"] | None:
        """Which written positions are masked again; never called in the last eighth of a block's steps."""
        return None

    def steps_of(self, blocks: list[int]) -> list[int]:
        """Most denoising steps in each block, of so many columns."""
        return blocks if self.num_steps is None else spread(self.num_steps, len(blocks))

    @property
    def remasks(self) -> bool:
        """True for rules that mask tokens again."""
        return type(self).remask is not UnmaskingRule.remask

    @property
    def approximation(self) -> str | None:
        """What the rule does that a replay of its record by full forwards does not see; None where there is nothing."""
        if self.remasks:
            return "masks tokens again"
        if self.cache in ("prefix", "dual"):
            return f"draws from stale keys and values (cache='{self.cache}')"
        return f"draws from guided laws (guidance={self.guidance:g})" if self.guidance else None

    @torch.no_grad()
    def generate(
        self, policy: BasePolicy, prompts: Prompts, *, seed: int, watcher: Watcher | None = None
    ) -> Completions:
        """Sample one completion a row; rows leave the batch when nothing before their EOS is masked."""
        if watcher is not None:
            return Denoising(self, policy, prompts, seed, watcher).run()
        return in_chunks(policy, prompts, lambda part: Denoising(self, policy, part, seed, Watcher()).run())
