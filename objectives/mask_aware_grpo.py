"""MAP (2607.15200): GRPO on what a denoising step decides, the positions that it writes as well as their tokens.

Every open position of a replayed step has one ratio: that of the probability of writing it or not, times that of its
token if it was written. `soft_threshold` records how it draws positions. Where positions are a step function of the
policy, or independent of it, they have no gradient, and this is `cj_grpo` with its own settings.
Departures: the public code models the choice of positions, whose probabilities its sampler does not know, by the
chance to win against each later one (Bradley-Terry in the logits), or by a softmax. It has a loss of its own for tokens
and one for positions, each clipped and averaged by itself, on steps merged by eight. Here the probabilities are those
that the sampler drew with, and the two are one ratio, divided by a row's scored tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from dllm_rl.advantages import AdvantageName
from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Rollouts, Views
from dllm_rl.registry import register
from objectives import NonNegative
from objectives.cj_grpo import CJGRPO


@register("objective", "mask_aware_grpo")
@dataclass(frozen=True, slots=True, kw_only=True)
class MaskAwareGRPO(CJGRPO):
    """Mask-Aware Policy gradients. num_steps: replayed steps per row, None = all; autoregressive replays all."""

    name: ClassVar[str] = "mask_aware_grpo"
    paper: ClassVar[str] = "2607.15200"
    version: ClassVar[int] = 1

    beta: NonNegative = 0.0
    advantage: AdvantageName = "leave_one_out"

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """The recorded canvases before the sampled steps, each scoring what its step decided."""
        steps, weight = process.some_steps(rollouts, generator, num_steps=self.num_steps)
        return process.replay_positions(rollouts, steps, weight)
