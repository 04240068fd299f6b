"""Uniformly random order: the baseline of every other rule (MDLM, 2406.07524; LLaDA, 2502.09992)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from dllm_rl.registry import register
from samplers.loop.context import StepContext
from samplers.loop.sampling import ORDER
from samplers.rules.base import UnmaskingRule


@register("sampler", "random")
@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSampler(UnmaskingRule):
    """Unmasks an equal quota of masked positions a step, in random order."""

    name: ClassVar[str] = "random"
    paper: ClassVar[str] = "2406.07524"

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """A uniform subset, by keyed noise."""
        return context.best(context.noise(ORDER), context.quota)
