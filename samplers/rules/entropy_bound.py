"""Entropy-bounded unmasking (2505.24857): commit together what cannot depend on one another by more than gamma nats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from dllm_rl.registry import register
from samplers.config import check_number
from samplers.loop.context import StepContext
from samplers.rules.base import UnmaskingRule


@register("sampler", "entropy_bound")
@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyBoundSampler(UnmaskingRule):
    """Unmasks the longest prefix by entropy whose summed entropy, less its largest, stays within `gamma`."""

    name: ClassVar[str] = "entropy_bound"
    paper: ClassVar[str] = "2505.24857"
    num_steps: int | None = None
    gamma: float = 0.1

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """Leading run of cumsum(H) - max(H) <= gamma, per row, entropies ascending; the first one always."""
        order = context.rank(-context.entropy).argsort(dim=1)
        sorted_entropy = context.entropy.gather(1, order)
        excess = sorted_entropy.cumsum(dim=1) - sorted_entropy.cummax(dim=1).values
        run = ((excess <= self.gamma) & context.is_open.gather(1, order)).long().cumprod(dim=1).bool()
        return run.gather(1, order.argsort(dim=1))

    def __post_init__(self) -> None:
        UnmaskingRule.__post_init__(self)
        check_number("gamma", self.gamma, least=0)
