"""Factor rule (Fast-dLLM, 2505.22618, theorem 1): a group is safe where (j + 1)(1 - its least p1) stays small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from dllm_rl.registry import register
from samplers.config import check_number
from samplers.loop.context import StepContext
from samplers.rules.base import UnmaskingRule


@register("sampler", "factor")
@dataclass(frozen=True, slots=True, kw_only=True)
class FactorSampler(UnmaskingRule):
    """Unmasks the j most confident positions for the largest j that passes; the first failure is excluded."""

    name: ClassVar[str] = "factor"
    paper: ClassVar[str] = "2505.22618"
    num_steps: int | None = None
    factor: float = 1.0

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """Leading run of (j + 1)(1 - p1_(j)) < factor, j counted from 1; the first position always."""
        rank = context.rank(context.log_odds)
        order = rank.argsort(dim=1)
        doubt = (-context.log_odds.gather(1, order)).sigmoid()
        is_safe = (torch.arange(2, doubt.shape[1] + 2) * doubt < self.factor) & context.is_open.gather(1, order)
        is_safe[:, 0] = True
        return is_safe.long().cumprod(dim=1).bool().gather(1, order.argsort(dim=1))

    def __post_init__(self) -> None:
        UnmaskingRule.__post_init__(self)
        check_number("factor", self.factor, least=0)
