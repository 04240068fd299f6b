"""The contract of an unmasking rule: which masked positions a step unmasks, and which tokens it remasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.likelihood.positions import PositionLaw
from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.types import Completions, Prompts
from samplers.config import check_count, check_temperature, is_number
from samplers.loop.context import RemaskContext, StepContext, Watcher
from samplers.loop.denoise import Denoising, spread
from samplers.loop.readers import CACHES, CacheName
from samplers.loop.sampling import in_chunks


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmaskingRule:
    """Base of the rules: one file with `choose`, and with `remask` for rules that mask written tokens again.

    Attributes:
        temperature: Temperature of the draws; 0 takes the most likely tokens.
        num_steps: Largest number of denoising steps over the whole canvas, but at least one a block; None for as many
            as it has columns.
        block_length: Columns of a semi-autoregressive block; None for one block, or for the blocks of the block family
            (of which any other length must be a divisor).
        grammar: Whether only plans that parse and act on the page's controls can be written.
        cache: Which keys and values are kept. `exact`: those that cannot change (block family). `none`: none; a full
            forward in every step gives the same. `prefix` and `dual` (masked family, 2505.22618) are approximate: in
            all but a block's first step, those before the block, or on both sides of it, are what they were in that
            step.
        guidance: The s of l_u + (s + 1)(l_c - l_u), where l_u are the logits without the prompt (2502.09992); 0 for
            none.
    """

    name: ClassVar[str]
    families: ClassVar[tuple[str, ...]] = ("masked", "block")
    version: ClassVar[int] = 1
    # Whether a step may unmask nothing in a row. Such a rule chooses before the model is asked, and never remasks.
    may_idle: ClassVar[bool] = False
    temperature: float = 1.0
    num_steps: int | None = 32
    block_length: int | None = None
    grammar: bool = False
    cache: CacheName = "exact"
    guidance: float = 0.0

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        check_count("num_steps", self.num_steps, "denoising steps")
        check_count("block_length", self.block_length, "columns of a block")
        if self.cache not in CACHES:
            raise ConfigError(f"cache={self.cache!r}: give one of {', '.join(CACHES)}")
        if CACHES[self.cache].is_approximate and self.block_length is None:
            raise ConfigError(
                f"cache='{self.cache}' keeps keys and values inside a block and reads everything where one begins: "
                "give block_length (a block as long as the canvas keeps the prompt's over all steps)"
            )
        if not (is_number(self.guidance) and self.guidance >= 0):
            raise ConfigError(f"guidance={self.guidance}: give 0 for none, or a positive strength")
        if self.may_idle and self.remasks:
            raise ConfigError(
                f"{type(self).__name__} has may_idle=True and `remask`: a rule that remasks may unmask nothing in a "
                "step without may_idle. Remove it."
            )

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """Return the open positions to unmask now. Where a row has none, the loop takes its most confident one."""
        raise NotImplementedError

    def remask(self, context: RemaskContext) -> Bool[Tensor, "b l"] | None:
        """Return the tokens to mask again; never called in the last eighth of a block's steps."""
        return None

    def steps_of(self, blocks: list[int]) -> list[int]:
        """Largest number of denoising steps in each block.

        Args:
            blocks: Their columns.
        """
        return blocks if self.num_steps is None else spread(self.num_steps, len(blocks))

    def quotas(self, num_columns: int, num_steps: int) -> list[int]:
        """Positions that a plain schedule unmasks in each step of a block of so many columns."""
        return spread(num_columns, num_steps)

    def position_law(self, block_length: int) -> PositionLaw | None:
        """How positions are drawn, where the policy moves their probabilities and a record can say them.

        Args:
            block_length: Columns of a block.
        """
        return None

    @property
    def counts_whole_blocks(self) -> bool:
        """Whether quotas are those of a whole block where only a part of it is written."""
        return False

    @property
    def hides_order(self) -> bool:
        """Whether positions are drawn with probabilities that the policy moves, and the record does not say them."""
        return False

    @property
    def remasks(self) -> bool:
        """True for rules that remask tokens."""
        return type(self).remask is not UnmaskingRule.remask

    @property
    def approximation(self) -> str | None:
        """Why a replay by full forwards does not give the recorded probabilities; None where it does."""
        if self.remasks:
            return "remasks tokens"
        if CACHES[self.cache].is_approximate:
            return f"draws from stale keys and values (cache='{self.cache}')"
        return f"draws from guided distributions (guidance={self.guidance:g})" if self.guidance else None

    def ingredients(self) -> list[Any]:
        """What else decides its draws, as plain data, such as digests of files that it reads."""
        return []

    @torch.no_grad()
    def generate(
        self, policy: BasePolicy, prompts: Prompts, *, seed: int, watcher: Watcher | None = None
    ) -> Completions:
        """Sample one completion a row; rows leave the batch when nothing before their EOS is masked."""
        if watcher is not None:
            return Denoising(self, policy, prompts, seed, watcher).run()
        return in_chunks(policy, prompts, lambda part: Denoising(self, policy, part, seed, Watcher()).run())
