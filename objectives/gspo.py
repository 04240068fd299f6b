"""GSPO (2507.18071, eq. 5): one length-normalised ratio per sequence over the token surrogate of GRPO, no penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from dllm_rl.options import added
from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Loss, LossInputs, Rollouts, Views
from dllm_rl.registry import register
from objectives import BelowOne, Clip, ClipName, Count, Method, NonNegative, mean_of_rows, sequence_terms


@register("objective", "gspo")
@dataclass(frozen=True, slots=True, kw_only=True)
class GSPO(Method):
    """Group Sequence Policy Optimization: GRPO's views, the mean of a sequence's log-ratios inside one exponential.

    Attributes:
        num_strata: Parts of the canvas of which one is hidden at a time (DACA-GRPO, 2605.16342); 1 hides all at once.
    """

    name: ClassVar[str] = "gspo"
    paper: ClassVar[str] = "2507.18071"
    level: ClassVar[str] = "sequence"
    published: ClassVar[dict[str, Any] | None] = {}

    clip_low: BelowOne = 3e-4
    clip_high: NonNegative = 4e-4
    clip_rule: ClipName = "ppo"
    num_strata: Count = added(default=1)

    @property
    def num_views(self) -> int | None:
        """One for each stratum."""
        return self.num_strata

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """One fully hidden view, or strata; the exact one for the autoregressive family."""
        if self.num_strata > 1:
            return process.strata(rollouts, generator, num_strata=self.num_strata)
        return process.one_step(rollouts, generator)

    def loss(self, inputs: LossInputs) -> Loss:
        """(1/R) sum_b [-ppo(exp(sum_i D_i / N_b), A_b)]."""
        clip = Clip(low=self.clip_low, high=self.clip_high, rule=self.clip_rule)
        terms = sequence_terms(inputs, clip, self.beta)
        return Loss(value=mean_of_rows(inputs.rollouts, terms.entries), metrics=terms.metrics)
