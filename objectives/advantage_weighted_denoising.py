"""The denoising loss weighted by the advantage: REINFORCE on a one-view ELBO, the simplest thing that could work.

For A < 0 the loss is unbounded below: a baseline on purpose. On the autoregressive family it is REINFORCE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Loss, LossInputs, Rollouts, Views
from dllm_rl.registry import register
from objectives import (
    Method,
    NonNegative,
    k2,
    kl_metrics,
    lengths,
    mean_of_rows,
    reference_log_ratio,
    scored,
    sequence_sum,
)


@register("objective", "advantage_weighted_denoising")
@dataclass(frozen=True, slots=True, kw_only=True)
class AdvantageWeightedDenoising(Method):
    """No ratio and no clip: off policy it does not know that it is."""

    name: ClassVar[str] = "advantage_weighted_denoising"
    paper: ClassVar[str] = "2502.09992"
    level: ClassVar[str] = "sequence"
    needs_old: ClassVar[bool] = False

    beta: NonNegative = 0.04

    @property
    def estimates_elbo(self) -> bool:
        """Yes, with one view."""
        return True

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """One ELBO view at a uniform level; the exact one for the autoregressive family."""
        return process.elbo(rollouts, generator, num_draws=1, antithetic=False)

    def loss(self, inputs: LossInputs) -> Loss:
        """(1/R) sum_b [-A_b B_b / N_b + beta dB^2 / (2 N_b)]."""
        rollouts, views, d = inputs.rollouts, inputs.views, reference_log_ratio(inputs)
        num_tokens = lengths(rollouts)
        entries = -inputs.advantages * sequence_sum(views, scored(views, inputs.new)) / num_tokens
        metrics: dict[str, float] = {}
        if d is not None:
            d = sequence_sum(views, d)
            entries = entries + self.beta * k2(d) / num_tokens
            metrics = kl_metrics(d, k2(d) / num_tokens, rollouts.valid)
        return Loss(value=mean_of_rows(rollouts, entries), metrics=metrics)
