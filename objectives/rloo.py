"""RLOO (2402.14740): REINFORCE on whole sequences with a leave-one-out baseline, here with a clipped sequence ratio.

Departure: the paper subtracts the KL from the reward; here the penalty is k2 per token in the loss. Its expected
gradient is that of each token's own KL: what an earlier token does to the KL of later ones is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from dllm_rl.advantages import AdvantageName
from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Loss, LossInputs, Rollouts, Views
from dllm_rl.registry import register
from objectives import (
    Clip,
    Method,
    NoClip,
    NonNegative,
    Penalty,
    clipped_terms,
    k2,
    log_ratio,
    mean_of_rows,
    reference_log_ratio,
    sequence_sum,
    token_sum,
)


@register("objective", "rloo")
@dataclass(frozen=True, slots=True, kw_only=True)
class RLOO(Method):
    """REINFORCE Leave-One-Out. The ratio is not length-normalised: at N = 256 a mean drift of .01 is a ratio of 13.

    At its one inner step the ratio is 1, so that other bounds of the clip would have no effect, and are refused.
    """

    name: ClassVar[str] = "rloo"
    paper: ClassVar[str] = "2402.14740"
    level: ClassVar[str] = "sequence"
    max_inner_steps: ClassVar[int | None] = 1
    published: ClassVar[dict[str, Any] | None] = {"beta": 0.0}

    beta: NonNegative = 0.05
    advantage: AdvantageName = "leave_one_out"
    clip_low: NoClip = 0.2
    clip_high: NoClip = 0.2

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """One fully hidden view; the exact one for the autoregressive family."""
        return process.one_step(rollouts, generator)

    def loss(self, inputs: LossInputs) -> Loss:
        """(1/R) sum_b [-ppo(exp(sum_i D_i), A_b) + beta sum_i k2(d_i)]."""
        rollouts, views, d = inputs.rollouts, inputs.views, reference_log_ratio(inputs)
        penalty = None
        if d is not None:
            d = token_sum(views, d)
            penalty = Penalty(beta=self.beta, d=d.sum(-1), value=k2(d).sum(-1))
        clip = Clip(low=self.clip_low, high=self.clip_high)
        ratio = sequence_sum(views, log_ratio(inputs))
        terms = clipped_terms(ratio, inputs.advantages, rollouts.valid, clip, penalty)
        return Loss(value=mean_of_rows(rollouts, terms.entries), metrics=terms.metrics)
