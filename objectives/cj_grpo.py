"""CJ-GRPO (2509.23924): GRPO on the sampler's own steps, one clipped ratio per token at the step that committed it.

Departures: K of a row's S steps are drawn without replacement and weighted S / K, which estimates the sum over all of
them without bias. The public code has the k3 penalty, centred advantages, and the mean over steps of the mean over a
step's tokens; here k2, advantages divided by the group's standard deviation, and the mean over tokens. Scores are at
the sampler's temperature, there at 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Loss, LossInputs, Replays, Rollouts, Views
from dllm_rl.registry import register
from objectives import (
    TOKEN_KL,
    BelowOne,
    Clip,
    ClipName,
    Count,
    KLName,
    Method,
    NonNegative,
    mean_of_sequences,
    step_terms,
)


@register("objective", "cj_grpo")
@dataclass(frozen=True, slots=True, kw_only=True)
class CJGRPO(Method):
    """Consistent-trajectory GRPO.

    Attributes:
        num_steps: Replayed steps per row, None = all; autoregressive replays all at once.
    """

    name: ClassVar[str] = "cj_grpo"
    paper: ClassVar[str] = "2509.23924"
    level: ClassVar[str] = "step"
    replays: ClassVar[Replays] = Replays.STEPS
    requires: ClassVar[tuple[str, ...]] = ("trajectory",)
    published: ClassVar[dict[str, Any] | None] = {"kl": "k3", "advantage": "centred", "num_steps": None}

    beta: NonNegative = 0.04
    clip_low: BelowOne = 0.2
    clip_high: NonNegative = 0.2
    clip_rule: ClipName = "ppo"
    kl: KLName = "k2"
    num_steps: Count | None = 8

    @property
    def num_views(self) -> int | None:
        """One for each replayed step."""
        return self.num_steps

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """The recorded canvases before the sampled steps, each scoring what its step committed."""
        return process.replay(rollouts, generator, num_steps=self.num_steps)

    def loss(self, inputs: LossInputs) -> Loss:
        """(1/R) sum_b (1/N_b) sum_k v_k sum_{i in E_k} [-ppo(exp D_ki, A_b) + beta k2(d_ki)]."""
        clip = Clip(low=self.clip_low, high=self.clip_high, rule=self.clip_rule)
        terms = step_terms(inputs, clip, self.beta, TOKEN_KL[self.kl])
        return Loss(value=mean_of_sequences(inputs.rollouts, terms.entries.sum(0)), metrics=terms.metrics)
