"""Running confidence remasking (RCR, 2508.13148): predict everything, keep what was surest when it was written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from dllm_rl.registry import register
from samplers.loop.context import RemaskContext, StepContext
from samplers.rules.base import UnmaskingRule


@register("sampler", "rcr")
@dataclass(frozen=True, slots=True, kw_only=True)
class RunningConfidenceSampler(UnmaskingRule):
    """Unmasks every position each step, then remasks the least confident, so that a growing number stays."""

    name: ClassVar[str] = "rcr"
    paper: ClassVar[str] = "2508.13148"
    version: ClassVar[int] = 2

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """All of them."""
        return context.is_open

    def remask(self, context: RemaskContext) -> Bool[Tensor, "b l"]:
        """All but the surest of what was drawn, as many as a plain schedule would have written by now."""
        length = context.is_drawn.sum(dim=1, keepdim=True)
        kept = (length.double() * context.step.progress[1]).ceil()
        score = context.log_probs.masked_fill(~context.is_drawn, torch.inf)
        rank = score.argsort(dim=1, stable=True).argsort(dim=1)
        return rank < length - kept
