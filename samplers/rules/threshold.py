"""Confidence threshold (Fast-dLLM, 2505.22618): as many tokens a step as the model is sure of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.registry import register
from samplers.loop.context import StepContext
from samplers.rules.base import UnmaskingRule


@register("sampler", "threshold")
@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdSampler(UnmaskingRule):
    """Unmasks every position whose best token has probability `threshold` or more; at least the best one."""

    name: ClassVar[str] = "threshold"
    paper: ClassVar[str] = "2505.22618"
    num_steps: int | None = None
    threshold: float = 0.9

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """p1 >= threshold, compared as log-odds."""
        return (context.log_odds >= math.log(self.threshold / (1 - self.threshold))) | context.best(context.log_odds, 1)

    def __post_init__(self) -> None:
        UnmaskingRule.__post_init__(self)
        if not 0 < self.threshold < 1:
            raise ConfigError(f"threshold={self.threshold}: expected a probability strictly between 0 and 1")
