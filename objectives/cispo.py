"""CISPO (2506.13585): the ratio is capped and detached, a weight on the log-likelihood; no token loses its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from dllm_rl.records.types import Loss, LossInputs
from dllm_rl.registry import register
from objectives import (
    NoClip,
    NonNegative,
    NoPenalty,
    bounded_ratio,
    log_ratio,
    mean_of_tokens,
    ratio_metrics,
    scored,
    token_advantages,
    token_sum,
)
from objectives.grpo import GRPO


@register("objective", "cispo")
@dataclass(frozen=True, slots=True, kw_only=True)
class CISPO(GRPO):
    """Clipped Importance Sampling Policy Optimization.

    Attributes:
        ratio_cap: Upper bound of the weight; there is no lower one. Clip and KL of GRPO are not read, and refused.
    """

    name: ClassVar[str] = "cispo"
    paper: ClassVar[str] = "2506.13585"
    published: ClassVar[dict[str, Any] | None] = {}

    beta: NoPenalty = 0.0
    clip_low: NoClip = 0.2
    clip_high: NoClip = 0.2
    clip_rule: Literal["ppo"] = "ppo"
    kl: Literal["k3"] = "k3"
    ratio_cap: NonNegative = 5.0

    def loss(self, inputs: LossInputs) -> Loss:
        """(1/T) sum_b sum_i -sg(min(r_i, cap)) A_b logp_i."""
        views, advantages = inputs.views, token_advantages(inputs)
        ratio = token_sum(views, log_ratio(inputs)).detach()
        weight = bounded_ratio(ratio).clamp(max=self.ratio_cap)
        entries = -weight * advantages * token_sum(views, scored(views, inputs.new))
        is_scored = views.score.any(0) & inputs.rollouts.valid[:, None]
        metrics = ratio_metrics(ratio, advantages, is_scored)
        return Loss(value=mean_of_tokens(inputs.rollouts, entries), metrics=metrics)
