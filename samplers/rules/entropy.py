"""Entropy order (2508.15487): the least uncertain positions first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from dllm_rl.registry import register
from samplers.loop.context import StepContext
from samplers.rules.schedule import ScheduledRule


@register("sampler", "entropy")
@dataclass(frozen=True, slots=True, kw_only=True)
class EntropySampler(ScheduledRule):
    """Unmasks a quota a step, those of lowest entropy first."""

    name: ClassVar[str] = "entropy"
    paper: ClassVar[str] = "2508.15487"

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """The quota's smallest entropies."""
        return context.best(-context.entropy, context.quota)
