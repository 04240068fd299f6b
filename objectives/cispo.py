"""CISPO (2506.13585): the ratio is capped and detached, a weight on the log-likelihood; no token loses its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from dllm_rl.registry import register
from dllm_rl.types import Loss, Rollouts, Views
from objectives._method import NonNegative, NoPenalty
from objectives._metrics import ratio_metrics
from objectives._surrogate import bounded_ratio, log_ratio, mean_of_tokens, scored, token_sum
from objectives.grpo import GRPO


@register("objective", "cispo")
@dataclass(frozen=True, slots=True, kw_only=True)
class CISPO(GRPO):
    """Clipped Importance Sampling Policy Optimization. ratio_cap: upper bound of the weight; there is no lower one."""

    name: ClassVar[str] = "cispo"
    paper: ClassVar[str] = "2506.13585"

    beta: NoPenalty = 0.0
    ratio_cap: NonNegative = 5.0

    def loss(
        self,
        rollouts: Rollouts,
        views: Views,
        new: Float[Tensor, "k b l"],
        old: Float[Tensor, "k b l"],
        ref: Float[Tensor, "k b l"] | None,
        advantages: Float[Tensor, " b"],
    ) -> Loss:
        """(1/T) sum_b sum_i -sg(min(r_i, cap)) A_b logp_i."""
        ratio = token_sum(views, log_ratio(views, new, old)).detach()
        weight = bounded_ratio(ratio).clamp(max=self.ratio_cap)
        entries = -weight * advantages[:, None] * token_sum(views, scored(views, new))
        is_scored = views.score.any(0) & rollouts.valid[:, None]
        metrics = ratio_metrics(ratio, advantages[:, None], is_scored)
        return Loss(value=mean_of_tokens(rollouts, entries), metrics=metrics)
