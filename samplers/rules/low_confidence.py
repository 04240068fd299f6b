"""Low-confidence remasking order (LLaDA, 2502.09992), ranked by log-odds, which separate where probabilities tie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from dllm_rl.options import added
from dllm_rl.registry import register
from samplers.loop.context import StepContext
from samplers.rules.schedule import ScheduledRule, ScheduleName


@register("sampler", "low_confidence")
@dataclass(frozen=True, slots=True, kw_only=True)
class LowConfidenceSampler(ScheduledRule):
    """Unmasks a quota of positions a step, the most confident ones first; Dream's `maskgit_plus` with its schedule."""

    name: ClassVar[str] = "low_confidence"
    paper: ClassVar[str] = "2502.09992"
    schedule: ScheduleName = added("equal")

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """The quota's highest log-odds."""
        return context.best(context.log_odds, context.quota)
