"""BGPO (2510.11683): a lower bound of ESPO's gain that is a plain sum over ELBO views, so that many views fit.

delta_j is the length-normalised change of the one-view ELBO b_j. For A >= 0 the gain is A (1 + delta_j), for A < 0 it
is A exp(delta_j); both touch A exp(mean_j delta_j) from below at the old weights, with its gradient.
Compared with no public code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Loss, LossInputs, Rollouts, Views
from dllm_rl.registry import register
from objectives import (
    AboveOne,
    BelowOne,
    Count,
    Method,
    NonNegative,
    NoPenalty,
    Surrogate,
    clip_metrics,
    dual,
    lengths,
    log_ratio,
    mean_of_rows,
    ratio_metrics,
)


@register("objective", "bgpo")
@dataclass(frozen=True, slots=True, kw_only=True)
class BGPO(Method):
    """Boundary-Guided Policy Optimization.

    Attributes:
        num_draws: views.
        ceiling: Of the ratio where A < 0 (dual clip).
    """

    name: ClassVar[str] = "bgpo"
    paper: ClassVar[str] = "2510.11683"
    level: ClassVar[str] = "sequence"

    beta: NoPenalty = 0.0
    clip_low: BelowOne = 0.2
    clip_high: NonNegative = 0.2
    ceiling: AboveOne = 3.0
    num_draws: Count = 16

    @property
    def estimates_elbo(self) -> bool:
        """Yes: the mean over its views."""
        return True

    @property
    def num_views(self) -> int | None:
        """One for each draw."""
        return self.num_draws

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """Plain ELBO views, each an estimate of its own; loss_weight 1 / k makes the loss their mean."""
        drawn = process.elbo(rollouts, generator, num_draws=self.num_draws, antithetic=False)
        num_views = drawn.num_views
        share = torch.full_like(drawn.weight, 1 / num_views)
        return replace(drawn, weight=drawn.weight * num_views, loss_weight=share)

    def loss(self, inputs: LossInputs) -> Loss:
        """-(1/R) sum_b mean_j gain(delta_j, A_b), clipped as PPO and from below at ceiling x A."""
        rollouts, views = inputs.rollouts, inputs.views
        delta = (views.weight * log_ratio(inputs)).sum(-1) / lengths(rollouts)
        advantages = inputs.advantages.expand_as(delta)
        gain = self._gain(delta, advantages)
        assert views.loss_weight is not None
        entries = (views.loss_weight[..., 0] * -gain.gain).sum(0)
        is_scored = views.score.any(-1) & rollouts.valid
        metrics = ratio_metrics(delta, advantages, is_scored) | clip_metrics(gain, advantages, delta, is_scored)
        return Loss(value=mean_of_rows(rollouts, entries), metrics=metrics)

    def _gain(self, delta: Float[Tensor, "k b"], advantages: Float[Tensor, "k b"]) -> Surrogate:
        bad = dual(delta, advantages, self.clip_low, self.clip_high, self.ceiling)
        is_good = advantages >= 0
        is_high = is_good & (delta > self.clip_high)
        linear = advantages * (1 + torch.where(is_high, torch.full_like(delta, self.clip_high), delta))
        return Surrogate(
            gain=torch.where(is_good, linear, bad.gain),
            is_low=bad.is_low & ~is_good,
            is_high=torch.where(is_good, is_high, bad.is_high),
        )
