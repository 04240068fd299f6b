"""Ancestral sampling of masked diffusion (MDLM, 2406.07524; Dream's `origin`, 2508.15487): a coin for every mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.registry import register
from samplers.loop.context import StepContext
from samplers.loop.sampling import ORDER
from samplers.rules.base import UnmaskingRule


@register("sampler", "ancestral")
@dataclass(frozen=True, slots=True, kw_only=True)
class AncestralSampler(UnmaskingRule):
    """Unmasks each mask with probability (t - s) / t, t on linspace(1, least_time, steps + 1); the last step all.

    A step may unmask nothing in a row; such a row costs no forward. A single row therefore takes at most one forward
    per column, and one more per block with a stale cache.
    """

    name: ClassVar[str] = "ancestral"
    paper: ClassVar[str] = "2406.07524"
    may_idle: ClassVar[bool] = True
    least_time: float = 1e-3

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """A coin for every open position, by keyed noise."""
        now, after = (1 - (1 - self.least_time) * share for share in context.progress)
        return context.noise(ORDER) < (now - after) / now

    def __post_init__(self) -> None:
        UnmaskingRule.__post_init__(self)
        if not 0 <= self.least_time < 1:
            raise ConfigError(f"least_time={self.least_time}: give a time from 0 up to, but not including, 1")
