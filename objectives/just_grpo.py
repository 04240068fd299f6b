"""JustGRPO (2601.15165): GRPO on the left-to-right likelihood of a masked model, one view per token.

View t hides every token from t on and scores token t. The likelihood is exact if the sampler writes left to right.
Departure: K of the N tokens may be sampled without replacement and weighted N / K.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from dllm_rl.registry import register
from dllm_rl.types import Corruption, Family, Rollouts, Views
from dllm_rl.views import exact, hide
from objectives._kl import KLName
from objectives._method import Count, NonNegative
from objectives.cj_grpo import CJGRPO


@register("objective", "just_grpo")
@dataclass(frozen=True, slots=True, kw_only=True)
class JustGRPO(CJGRPO):
    """GRPO in autoregressive order. num_steps: scored tokens per row, None = all, which costs a forward each."""

    name: ClassVar[str] = "just_grpo"
    paper: ClassVar[str] = "2601.15165"
    level: ClassVar[str] = "token"
    families: ClassVar[tuple[Family, ...]] = ("autoregressive", "masked", "block")
    requires: ClassVar[tuple[str, ...]] = ()

    beta: NonNegative = 0.0
    kl: KLName = "k3"
    num_steps: Count | None = None

    def views(self, rollouts: Rollouts, corruption: Corruption, generator: torch.Generator, inner_step: int) -> Views:
        """For each of the chosen tokens, the canvas with it and all that follows hidden."""
        if corruption.family == "autoregressive":
            return exact(rollouts)
        ids, mask = rollouts.completion_ids, rollouts.completion_mask
        total = mask.sum(-1)
        width = max(1, min(int(total.max()), self.num_steps or ids.shape[1]))
        keys = torch.rand(mask.shape, generator=generator, device=generator.device).to(ids.device)
        chosen = torch.where(mask, keys, 2.0).argsort(-1)[:, :width].T
        is_used = mask.gather(1, chosen.T).T
        column = torch.arange(ids.shape[1], device=ids.device)
        score = (column == chosen[..., None]) & is_used[..., None]
        share = total / is_used.sum(0).clamp(min=1)
        return Views(
            kind="elbo",
            tokens=hide(rollouts, corruption, column >= chosen[..., None], generator),
            score=score,
            weight=score.float(),
            loss_weight=score * share[:, None],
        )
