"""Confidence threshold (Fast-dLLM, 2505.22618): as many tokens a step as the model is sure of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.options import added
from dllm_rl.registry import register
from samplers.loop.context import StepContext
from samplers.rules.base import UnmaskingRule


@register("sampler", "threshold")
@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdSampler(UnmaskingRule):
    """Unmasks every position whose best token has probability `threshold` or more; at least the best one.

    Attributes:
        next_token_first: A block's first step unmasks its first column alone, the next token behind the block before it
            (Fast-dLLM v2, 2509.26328), unless the block begins within the prompt.
    """

    name: ClassVar[str] = "threshold"
    paper: ClassVar[str] = "2505.22618"
    num_steps: int | None = None
    threshold: float = 0.9
    next_token_first: bool = added(default=False)

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """p1 >= threshold, compared as log-odds."""
        if self.next_token_first and context.step == 0 and context.block_step.begins_block:
            return context.columns == context.block_step.in_block.long().argmax()
        return (context.log_odds >= math.log(self.threshold / (1 - self.threshold))) | context.best(context.log_odds, 1)

    def __post_init__(self) -> None:
        UnmaskingRule.__post_init__(self)
        if not 0 < self.threshold < 1:
            raise ConfigError(f"threshold={self.threshold}: expected a probability strictly between 0 and 1")
        if self.next_token_first and type(self).choose is not ThresholdSampler.choose:
            raise ConfigError(
                f"next_token_first=true belongs to the order of `threshold`, and '{self.name}' has one of its own. "
                "Leave it out."
            )
