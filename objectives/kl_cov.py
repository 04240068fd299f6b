"""KL-Cov (2505.22617): a KL penalty to the policy that sampled, on the few tokens that drive the entropy down.

These are the tokens with the largest covariance of log-probability and advantage, (log p_i - mean) (A_i - mean). There
is no clip. OpAgent trains a web agent with it; its report gives neither share nor weight.
Departures: the penalty is k2 where the public code takes abs(D), so that it is smooth at 0; means and shares
are of each group and not of the step, so that micro-batches of whole groups add up; at least one token of a group is
penalised, since groups here have hundreds of tokens; and tokens without positive covariance never are, since where all
rewards are equal nothing drives the entropy down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Loss, LossInputs, Rollouts, Views
from dllm_rl.registry import register
from objectives import (
    Method,
    NonNegative,
    NoPenalty,
    bounded_ratio,
    k2,
    log_ratio,
    mean_of_tokens,
    ratio_metrics,
    scored,
    token_advantages,
    token_sum,
)


@register("objective", "kl_cov")
@dataclass(frozen=True, slots=True, kw_only=True)
class KLCov(Method):
    """Policy gradient whose entropy is kept up by a penalty on few tokens. The first inner step has none of it.

    Attributes:
        share: Of a group's scored tokens that are penalised.
        weight: Of their penalty.
    """

    name: ClassVar[str] = "kl_cov"
    paper: ClassVar[str] = "2505.22617"
    level: ClassVar[str] = "token"
    group_coupled: ClassVar[bool] = True
    min_inner_steps: ClassVar[int] = 2

    beta: NoPenalty = 0.0
    share: Annotated[float, Field(gt=0, le=1)] = 2e-3
    weight: NonNegative = 1.0

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """One fully hidden view; the exact one for the autoregressive family."""
        return process.one_step(rollouts, generator)

    def loss(self, inputs: LossInputs) -> Loss:
        """(1/T) sum_b sum_i [-r_i A_b + weight k2(D_i) where the covariance is among the largest]."""
        views = inputs.views
        d, advantages = token_sum(views, log_ratio(inputs)), token_advantages(inputs)
        is_scored = views.score.any(0) & inputs.rollouts.valid[:, None]
        likelihood = token_sum(views, scored(views, inputs.new)).detach()
        penalised = self._largest(inputs.rollouts.group_ids, likelihood, advantages.expand_as(d), is_scored)
        entries = -bounded_ratio(d) * advantages + self.weight * torch.where(penalised, k2(d), torch.zeros_like(d))
        metrics = ratio_metrics(d, advantages.expand_as(d), is_scored)
        return Loss(value=mean_of_tokens(inputs.rollouts, torch.where(is_scored, entries, 0.0)), metrics=metrics)

    def _largest(
        self,
        groups: Int[Tensor, " b"],
        likelihood: Float[Tensor, "b l"],
        advantages: Float[Tensor, "b l"],
        is_scored: Bool[Tensor, "b l"],
    ) -> Bool[Tensor, "b l"]:
        """Of each group's scored tokens the share with the largest covariance, at least one, where that is positive."""
        chosen = torch.zeros_like(is_scored)
        for group in groups.unique():
            own = is_scored & (groups == group)[:, None]
            if not own.any():
                continue
            parts = (values[own] - values[own].mean() for values in (likelihood, advantages))
            covariance = torch.stack(list(parts)).prod(0)
            count = max(1, round(self.share * int(own.sum())))
            largest = torch.zeros_like(covariance, dtype=torch.bool).index_fill(0, covariance.topk(count).indices, True)
            chosen[own] = largest & (covariance > 0)
        return chosen
