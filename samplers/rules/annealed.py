"""Confidence with an annealed random order: a Plackett-Luce draw that turns into the greedy order as steps go by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from dllm_rl.registry import register
from samplers.config import check_number
from samplers.loop.context import StepContext
from samplers.loop.sampling import ORDER
from samplers.rules.base import UnmaskingRule


@register("sampler", "annealed")
@dataclass(frozen=True, slots=True, kw_only=True)
class AnnealedSampler(UnmaskingRule):
    """Unmasks an equal quota a step, drawn without replacement with weights exp(log-odds / tau)."""

    name: ClassVar[str] = "annealed"
    paper: ClassVar[str] = "2508.15487"
    order_temperature: float = 1.0

    def __post_init__(self) -> None:
        UnmaskingRule.__post_init__(self)
        check_number("order_temperature", self.order_temperature, least=0)

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """Top quota of log-odds / tau + Gumbel noise; tau falls linearly from `order_temperature` to 0."""
        tau = self.order_temperature * (1 - context.progress[1])
        gumbel = -(-context.noise(ORDER).log()).log()
        return context.best(context.log_odds.double() + tau * gumbel, context.quota)

    @property
    def hides_order(self) -> bool:
        """Yes: what is drawn is a set, whose probability is a sum over all orders."""
        return True
