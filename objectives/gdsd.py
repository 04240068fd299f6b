"""GDSD (2605.29398): the change of a completion's ELBO is regressed on its advantage; no ratio, no exponential.

Departures: the public code regresses the unweighted sum of the log-probabilities of what is hidden, here the weighted
one, which estimates the ELBO. It sums one square for each draw, here the square of their mean is taken. Its advantage
is the leave-one-out one times 10, here the centred one times `scale`. The length-normalised change is clamped at
+-log(1 + clip); there the raw sum is clamped between log(1 - 4e-4) and log(1 + 4e-4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from dllm_rl.advantages import AdvantageName
from dllm_rl.records.types import Loss, LossInputs
from dllm_rl.registry import register
from objectives import (
    NonNegative,
    PairedElbo,
    Positive,
    k2,
    kl_metrics,
    lengths,
    log_ratio,
    mean_of_rows,
    ratio_metrics,
    reference_log_ratio,
    sequence_sum,
)


@register("objective", "gdsd")
@dataclass(frozen=True, slots=True, kw_only=True)
class GDSD(PairedElbo):
    """Squared distance of the normalised log-ratio to scale x A.

    Attributes:
        clip: Log-ratios beyond log(1 + clip) do not move.
    """

    name: ClassVar[str] = "gdsd"
    paper: ClassVar[str] = "2605.29398"
    level: ClassVar[str] = "sequence"
    exceptions: ClassVar[dict[str, str]] = {
        "equal_rewards": "off policy the regression pulls a completion without advantage back to the old weights"
    }

    beta: NonNegative = 0.0
    advantage: AdvantageName = "centred"
    clip: Positive = 0.2
    scale: Positive = 1.0

    @property
    def needs_flat_groups(self) -> bool:
        """Yes: off policy, rows without advantage are pulled back to the old weights."""
        return True

    def loss(self, inputs: LossInputs) -> Loss:
        """(1/R) sum_b (clamp(DB / N, +-log(1 + clip)) - scale A_b)^2 + beta dB^2 / (2 N_b)."""
        rollouts, views, d = inputs.rollouts, inputs.views, reference_log_ratio(inputs)
        num_tokens = lengths(rollouts)
        ratio = sequence_sum(views, log_ratio(inputs)) / num_tokens
        bound = math.log1p(self.clip)
        entries = (ratio.clamp(-bound, bound) - self.scale * inputs.advantages).square()
        metrics = ratio_metrics(ratio, inputs.advantages, rollouts.valid)
        if d is not None:
            d = sequence_sum(views, d)
            entries = entries + self.beta * k2(d) / num_tokens
            metrics |= kl_metrics(d, k2(d) / num_tokens, rollouts.valid)
        return Loss(value=mean_of_rows(rollouts, entries), metrics=metrics)
