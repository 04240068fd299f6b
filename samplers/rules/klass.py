"""KLASS (2511.05664): commit where the law has stopped moving from step to step and is confident."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm_rl.registry import register
from samplers.loop.context import View
from samplers.rules.base import UnmaskingRule


@register("sampler", "klass")
@dataclass(frozen=True, slots=True, kw_only=True)
class KlassSampler(UnmaskingRule):
    """Commits positions that are stable and confident; where there are none, the quota's most confident ones.

    confidence: least probability of the best token. max_kl: largest KL(now || before) in each of the last
    `history` steps.
    """

    name: ClassVar[str] = "klass"
    paper: ClassVar[str] = "2511.05664"
    num_steps: int | None = None
    confidence: float = 0.9
    max_kl: float = 0.01
    history: int = 2

    def choose(self, view: View) -> Bool[Tensor, "b n"]:
        """Stable for `history` steps and p1 > confidence, else the quota by log-odds."""
        stable = self._stable_for(view) >= self.history
        ready = stable & (view.odds.sigmoid() > self.confidence) & view.is_open
        return torch.where(ready.any(dim=1, keepdim=True), ready, view.best(view.odds, max(1, view.quota)))

    def _stable_for(self, view: View) -> Int[Tensor, "b n"]:
        """For how many steps in a row each open position's law has moved by less than max_kl."""
        now = view.laws.log_softmax(dim=-1)
        rows, columns = view.rows[:, None], view.columns
        if view.step == 0 or "log_p" not in view.memory:
            num_rows, length = int(view.rows.max()) + 1, int(columns.max()) + 1
            view.memory["log_p"] = torch.full((num_rows, length, now.shape[-1]), torch.nan)
            view.memory["count"] = torch.zeros(num_rows, length, dtype=torch.long)
        before = view.memory["log_p"][rows, columns]
        moved = torch.nan_to_num((now.exp() * (now.clamp(min=-1e4) - before.clamp(min=-1e4))).sum(-1), nan=torch.inf)
        count = torch.where(moved < self.max_kl, view.memory["count"][rows, columns] + 1, 0)
        view.memory["log_p"][rows, columns] = now
        view.memory["count"][rows, columns] = count
        return count
