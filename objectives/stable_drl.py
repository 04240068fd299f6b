"""StableDRL (2603.06743): ESPO's ratio as a detached weight, clipped whatever the sign of A, normalised over the group.

Departures: both bounds of the clip are kept, at .2, where the public code has the upper one alone, at a ratio of 5. The
same views score the new and the old policy, there fresh ones. The ELBO is used for either sign of A, there SPG's mixed
upper bound for A < 0. Its views have the weight (N + 1) / n; there a view is the mean of its hidden tokens, which is
N / n. Weights sum to 1 over a group, there over a micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from dllm_rl.records.types import Loss, LossInputs, MeanOver
from dllm_rl.registry import register
from objectives import (
    BelowOne,
    NonNegative,
    NoPenalty,
    PairedElbo,
    clip_metrics,
    lengths,
    log_ratio,
    ratio_metrics,
    scored,
    sequence_sum,
    sum_of_rows,
    unconditional,
)


@register("objective", "stable_drl")
@dataclass(frozen=True, slots=True, kw_only=True)
class StableDRL(PairedElbo):
    """Self-normalised, unconditionally clipped weights: bounded influence of every completion. Needs whole groups."""

    name: ClassVar[str] = "stable_drl"
    paper: ClassVar[str] = "2603.06743"
    level: ClassVar[str] = "sequence"
    group_coupled: ClassVar[bool] = True
    mean_over: ClassVar[MeanOver] = MeanOver.GROUP
    version: ClassVar[int] = 3

    beta: NoPenalty = 0.0
    clip_low: BelowOne = 0.2
    clip_high: NonNegative = 0.2

    def loss(self, inputs: LossInputs) -> Loss:
        """-(1/groups) sum_g sum_{b in g} sg(c_b / sum_g c) A_b B_b / N_b, c = clip(exp(DB / N))."""
        rollouts, views, advantages = inputs.rollouts, inputs.views, inputs.advantages
        num_tokens = lengths(rollouts)
        ratio = (sequence_sum(views, log_ratio(inputs)) / num_tokens).detach()
        clipped = unconditional(ratio, torch.ones_like(ratio), self.clip_low, self.clip_high)
        in_group = (rollouts.group_ids[:, None] == rollouts.group_ids) & rollouts.valid
        weight = clipped.gain / (in_group * clipped.gain).sum(-1).clamp(min=1e-12)
        entries = -weight * advantages * sequence_sum(views, scored(views, inputs.new)) / num_tokens
        metrics = ratio_metrics(ratio, advantages, rollouts.valid)
        metrics |= clip_metrics(clipped, advantages, ratio, rollouts.valid)
        return Loss(value=sum_of_rows(rollouts, entries) / max(rollouts.totals.groups, 1), metrics=metrics)
