"""First-hitting sampling (2409.02908): the order in which masks fall, without the clock on which they do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from dllm_rl.registry import register
from samplers.loop.context import StepContext
from samplers.loop.sampling import ORDER
from samplers.rules.base import UnmaskingRule


@register("sampler", "first_hitting")
@dataclass(frozen=True, slots=True, kw_only=True)
class FirstHittingSampler(UnmaskingRule):
    """Unmasks one uniformly drawn mask a step: what `ancestral` becomes as its steps grow without end.

    The next of n masks falls at t* = t u^(1/n). A model that is told the time would be asked at t*; those of these
    families are not told it, so the times are not drawn.
    """

    name: ClassVar[str] = "first_hitting"
    paper: ClassVar[str] = "2409.02908"
    num_steps: int | None = None

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """One open position of each row, by keyed noise."""
        return context.best(context.noise(ORDER), 1)
