"""AGRPO (2510.04019): an unbiased estimate of the whole trajectory's policy gradient from a few sampled steps.

Steps are drawn with replacement from probabilities q, with one shared low-discrepancy offset per row, and weighted
1 / (n q).
Departures: q has a uniform share of 10 %. Sums are divided by tokens; the public code divides by steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.advantages import AdvantageName
from dllm_rl.policies.process import ForwardProcess, stratified
from dllm_rl.records.types import Rollouts, Views
from dllm_rl.registry import register
from objectives import Count, NonNegative
from objectives.cj_grpo import CJGRPO
from objectives.egspo import summed_entropy

# Share of a uniform distribution in q. Without it a step of entropy 0 would never be drawn: the estimate were biased.
UNIFORM_SHARE = 0.1


@register("objective", "agrpo")
@dataclass(frozen=True, slots=True, kw_only=True)
class AGRPO(CJGRPO):
    """Amortized GRPO: CJ-GRPO with importance-sampled steps.

    Attributes:
        steps_by: Uniform, or by the entropy of their draws.
    """

    name: ClassVar[str] = "agrpo"
    paper: ClassVar[str] = "2510.04019"
    version: ClassVar[int] = 3
    published: ClassVar[dict[str, Any] | None] = {}

    beta: NonNegative = 0.0
    advantage: AdvantageName = "centred"
    num_steps: Count = 24
    steps_by: Literal["uniform", "entropy"] = "uniform"

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """num_steps recorded canvases per row, drawn from q with replacement; the exact view for autoregressive."""
        distribution = self._step_distribution(rollouts, process)
        level = stratified(rollouts.num_rows, self.num_steps, generator).to(distribution.device)
        bounds = distribution.cumsum(-1)
        steps = torch.searchsorted(bounds, (level.T * bounds[:, -1:]).contiguous(), right=True)
        steps = steps.clamp(max=distribution.shape[1] - 1).T
        chance = distribution.gather(1, steps.T).T
        weight = torch.where(chance > 0, 1 / (self.num_steps * chance.clamp(min=1e-12)), 0.0)
        return process.replay_steps(rollouts, steps, weight)

    def _step_distribution(self, rollouts: Rollouts, process: ForwardProcess) -> Float[Tensor, "b s"]:
        """Probability of each of a row's own steps."""
        own = process.own_steps(rollouts).float()
        uniform = own / own.sum(-1, keepdim=True).clamp(min=1)
        if self.steps_by == "uniform":
            return uniform
        entropy = summed_entropy(rollouts, own.shape[1])[0] * own
        by_entropy = entropy / entropy.sum(-1, keepdim=True).clamp(min=1e-12)
        has_entropy = entropy.sum(-1, keepdim=True) > 0
        return torch.where(has_entropy, UNIFORM_SHARE * uniform + (1 - UNIFORM_SHARE) * by_entropy, uniform)
