"""Top-two margin order (2508.15487; Dream's `topk_margin`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from dllm_rl.registry import register
from samplers.loop.context import StepContext
from samplers.rules.schedule import ScheduledRule


@register("sampler", "margin")
@dataclass(frozen=True, slots=True, kw_only=True)
class MarginSampler(ScheduledRule):
    """Unmasks a quota a step, those first whose two best tokens lie furthest apart."""

    name: ClassVar[str] = "margin"
    paper: ClassVar[str] = "2508.15487"

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """The quota's largest p1 - p2, written as -((1 - p1) + p2) so that it does not saturate."""
        return context.best(-((-context.log_odds).sigmoid() + context.second_probability), context.quota)
