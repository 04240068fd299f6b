"""Low-confidence remasking order (LLaDA, 2502.09992), ranked by log-odds, which separate where probabilities tie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from dllm_rl.registry import register
from samplers.loop.context import View
from samplers.rules.base import UnmaskingRule


@register("sampler", "low_confidence")
@dataclass(frozen=True, slots=True, kw_only=True)
class LowConfidenceSampler(UnmaskingRule):
    """Commits an equal quota of masked positions a step, those of the most confident laws first."""

    name: ClassVar[str] = "low_confidence"
    paper: ClassVar[str] = "2502.09992"

    def choose(self, view: View) -> Bool[Tensor, "b n"]:
        """The quota's highest log-odds."""
        return view.best(view.odds, view.quota)
