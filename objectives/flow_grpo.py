"""REINFORCE on the sampler's own steps, after Flow-GRPO (2505.05470): the log-probability of each recorded event.

At one inner step it has the gradient of CJ-GRPO.
Departure: Flow-GRPO has a clipped ratio. Here there is none, so a second inner step would be off policy unawares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Loss, LossInputs, Replays, Rollouts, Views
from dllm_rl.registry import register
from objectives import (
    Count,
    Method,
    NonNegative,
    k2,
    kl_metrics,
    mean_of_sequences,
    reference_log_ratio,
    scored,
    weighted,
)


@register("objective", "flow_grpo")
@dataclass(frozen=True, slots=True, kw_only=True)
class FlowGRPO(Method):
    """Per-step REINFORCE.

    Attributes:
        num_steps: Replayed steps per row, None = all.
        max_advantage: Bound of its magnitude.
    """

    name: ClassVar[str] = "flow_grpo"
    paper: ClassVar[str] = "2505.05470"
    level: ClassVar[str] = "step"
    replays: ClassVar[Replays] = Replays.STEPS
    requires: ClassVar[tuple[str, ...]] = ("trajectory",)
    needs_old: ClassVar[bool] = False
    max_inner_steps: ClassVar[int | None] = 1

    beta: NonNegative = 0.04
    num_steps: Count | None = 8
    max_advantage: NonNegative = 5.0

    @property
    def num_views(self) -> int | None:
        """One for each replayed step."""
        return self.num_steps

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """The recorded canvases before the sampled steps, each scoring what its step committed."""
        return process.replay(rollouts, generator, num_steps=self.num_steps)

    def loss(self, inputs: LossInputs) -> Loss:
        """(1/R) sum_b (1/N_b) sum_k v_k sum_{i in E_k} [-clip(A_b, -5, 5) logp_ki + beta k2(d_ki)]."""
        rollouts, views, d = inputs.rollouts, inputs.views, reference_log_ratio(inputs)
        bounded = inputs.advantages.clamp(-self.max_advantage, self.max_advantage)
        entries = -bounded[:, None] * scored(views, inputs.new)
        metrics: dict[str, float] = {}
        if d is not None:
            entries = entries + self.beta * k2(d)
            metrics = kl_metrics(d, k2(d), views.score & rollouts.valid[:, None])
        return Loss(value=mean_of_sequences(rollouts, weighted(views, entries).sum(0)), metrics=metrics)
