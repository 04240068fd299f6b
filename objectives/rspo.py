"""RSPO (2605.10218): the advantage is the target of the log-ratio to the reference policy, and what is missing weighs.

u_b = dB_b / N_b is the length-normalised change of a completion's ELBO since the reference policy. Its target is
scale x A_b, and the completion is pushed by the gap between the two, so that a noisy estimate is corrected by its own
error. Both are relative to the group.
Departures: the algebra follows the abstract and notes on it, and was compared with no public code. The change is
divided by the number of scored tokens, as in the other methods on the ELBO.
As a loss it is a square: with the best log Z of each group, trajectory balance (TraFL, 2605.13935), the square of
log Z + dB - r / beta, has this gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.advantages import AdvantageName
from dllm_rl.errors import ConfigError
from dllm_rl.records.types import Loss, LossInputs, Rollouts
from dllm_rl.registry import register
from objectives import (
    NoPenalty,
    PairedElbo,
    Positive,
    k2,
    kl_metrics,
    lengths,
    mean_of_rows,
    reference_log_ratio,
    sequence_sum,
)


@register("objective", "rspo")
@dataclass(frozen=True, slots=True, kw_only=True)
class RSPO(PairedElbo):
    """Relative Score Policy Optimization.

    Attributes:
        scale: Target of u at an advantage of 1. Needs whole groups.
    """

    name: ClassVar[str] = "rspo"
    paper: ClassVar[str] = "2605.10218"
    level: ClassVar[str] = "sequence"
    needs_old: ClassVar[bool] = False
    group_coupled: ClassVar[bool] = True
    version: ClassVar[int] = 1

    beta: NoPenalty = 0.0
    advantage: AdvantageName = "centred"
    scale: Positive = 1.0

    @property
    def needs_ref(self) -> bool:
        """Yes: the target is a log-ratio to the reference policy."""
        return True

    def loss(self, inputs: LossInputs) -> Loss:
        """-(1/R) sum_b sg(scale A_b - (u_b - mean of u over the group)) u_b."""
        rollouts, d = inputs.rollouts, reference_log_ratio(inputs)
        if d is None:
            raise ConfigError("objective 'rspo' needs scores of the reference policy, which its caller did not give.")
        num_tokens, d = lengths(rollouts), sequence_sum(inputs.views, d)
        score = d / num_tokens
        gap = self.scale * inputs.advantages - relative(rollouts, score)
        metrics = kl_metrics(d, k2(d) / num_tokens, rollouts.valid)
        return Loss(value=mean_of_rows(rollouts, -gap.detach() * score), metrics=metrics)


def relative(rollouts: Rollouts, values: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Values less their mean over the valid rows of the group."""
    in_group = (rollouts.group_ids[:, None] == rollouts.group_ids) & rollouts.valid
    values = torch.where(rollouts.valid, values, torch.zeros_like(values))
    return values - (in_group * values).sum(-1) / in_group.sum(-1).clamp(min=1)
