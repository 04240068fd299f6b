"""ESPO (2512.03759): the ELBO as the action's log-likelihood, one length-normalised ratio per sequence, k2 penalty.

Departures from the public code: counts are drawn uniformly (no half-even rounding), stratified over the pairs of a row,
and the same views score the new, old and reference policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.advantages import AdvantageName
from dllm_rl.process import ForwardProcess
from dllm_rl.registry import register
from dllm_rl.types import Loss, Rollouts, Views
from objectives._method import BelowOne, Count, Method, NonNegative
from objectives._surrogate import ClipName, mean_of_rows
from objectives._terms import Clip, sequence_terms


@register("objective", "espo")
@dataclass(frozen=True, slots=True, kw_only=True)
class ESPO(Method):
    """ELBO-based Sequence-level Policy Optimization. num_draws: noise levels; antithetic: two views each, not one.

    levels: drawn at random, or the num_draws x 2 nodes of a quadrature (GDPO, 2510.08554), which are always antithetic.
    clip_rule: ppo, or one that bounds A < 0 too (dual, unconditional).
    """

    name: ClassVar[str] = "espo"
    paper: ClassVar[str] = "2512.03759"
    level: ClassVar[str] = "sequence"

    beta: NonNegative = 3e-3
    advantage: AdvantageName = "leave_one_out"
    clip_low: BelowOne = 0.2
    clip_high: NonNegative = 0.2
    clip_rule: ClipName = "ppo"
    num_draws: Count = 2
    antithetic: bool = True
    levels: Literal["random", "quadrature"] = "random"

    @property
    def estimates_elbo(self) -> bool:
        """Yes with random levels; quadrature has a small bias."""
        return self.levels == "random"

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """Antithetic pairs of ELBO views; the exact view for the autoregressive family."""
        if self.levels == "quadrature":
            return process.quadrature(rollouts, generator, num_nodes=2 * self.num_draws)
        return process.elbo(rollouts, generator, num_draws=self.num_draws, antithetic=self.antithetic)

    def loss(
        self,
        rollouts: Rollouts,
        views: Views,
        new: Float[Tensor, "k b l"],
        old: Float[Tensor, "k b l"],
        ref: Float[Tensor, "k b l"] | None,
        advantages: Float[Tensor, " b"],
    ) -> Loss:
        """(1/R) sum_b [-ppo(exp(DB / N_b), A_b) + beta dB^2 / (2 N_b)]."""
        clip = Clip(low=self.clip_low, high=self.clip_high, rule=self.clip_rule)
        terms = sequence_terms(rollouts, views, new, old, ref, advantages, clip=clip, beta=self.beta)
        return Loss(value=mean_of_rows(rollouts, terms.entries), metrics=terms.metrics)
