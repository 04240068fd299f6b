"""KLASS (2511.05664): unmask where the distribution has stopped moving from step to step and is confident."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm_rl.registry import register
from samplers.config import check_count, check_number
from samplers.loop.context import StepContext
from samplers.rules.base import UnmaskingRule


@register("sampler", "klass")
@dataclass(frozen=True, slots=True, kw_only=True)
class KlassSampler(UnmaskingRule):
    """Unmasks positions that are stable and confident; where there are none, the quota's most confident ones.

    Attributes:
        confidence: Least probability of the best token.
        max_kl: Largest KL(now || before) of a stable position, in nats.
        history: Number of last steps in which a position must have been stable.
    """

    name: ClassVar[str] = "klass"
    paper: ClassVar[str] = "2511.05664"
    num_steps: int | None = None
    confidence: float = 0.9
    max_kl: float = 0.01
    history: int = 2

    def __post_init__(self) -> None:
        UnmaskingRule.__post_init__(self)
        check_number("confidence", self.confidence, least=0, largest=1)
        check_number("max_kl", self.max_kl, least=0)
        check_count("history", self.history, "steps without movement")

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """Stable for `history` steps and p1 > confidence, else the quota by log-odds."""
        stable = self._stable_for(context) >= self.history
        ready = stable & (context.log_odds.sigmoid() > self.confidence) & context.is_open
        return torch.where(ready.any(dim=1, keepdim=True), ready, context.best(context.log_odds, max(1, context.quota)))

    def _stable_for(self, context: StepContext) -> Int[Tensor, "b n"]:
        """Number of steps in a row in which each open position's distribution moved by less than max_kl."""
        now = context.distribution.logits.log_softmax(dim=-1)
        rows, columns = context.rows[:, None], context.columns
        if context.step == 0 or "log_p" not in context.memory:
            num_rows, length = int(context.rows.max()) + 1, int(columns.max()) + 1
            context.memory["log_p"] = now.new_full((num_rows, length, now.shape[-1]), torch.nan)
            context.memory["count"] = torch.zeros(num_rows, length, dtype=torch.long)
        before = context.memory["log_p"][rows, columns]
        moved = torch.nan_to_num((now.exp() * (now.clamp(min=-1e4) - before.clamp(min=-1e4))).sum(-1), nan=torch.inf)
        count = torch.where(moved.cpu() < self.max_kl, context.memory["count"][rows, columns] + 1, 0)
        context.memory["log_p"][rows, columns] = now
        context.memory["count"][rows, columns] = count
        return count
