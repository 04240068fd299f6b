"""GRPO (2402.03300, eq. 3): one clipped ratio per token, k3 penalty, the mean over each sequence's tokens.

Autoregressive: exact ratios. Other families: the one-step form of d1 (2504.12216), in which a token's log-probability
is that of a fully hidden canvas.
Departures from d1's code, which averages over all tokens, centres the advantage and hides 15 % of the prompt: here the
mean runs over sequences first, the advantage is divided by the group's standard deviation, and the prompt stays whole
unless `prompt_mask_share` is set. Log-ratios are bounded: to +-20 in the ratio, to +-5 in the penalty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Loss, LossInputs, Rollouts, Views
from dllm_rl.registry import register
from objectives import TOKEN_KL, BelowOne, Clip, ClipName, KLName, Method, NonNegative, mean_of_sequences, token_terms


@register("objective", "grpo")
@dataclass(frozen=True, slots=True, kw_only=True)
class GRPO(Method):
    """Group Relative Policy Optimization.

    Attributes:
        clip_rule: Ppo, or one that bounds A < 0 too (dual, unconditional).
        prompt_mask_share: Share of prompt tokens that are hidden, for families with a mask token.
    """

    name: ClassVar[str] = "grpo"
    paper: ClassVar[str] = "2402.03300"
    level: ClassVar[str] = "token"
    published: ClassVar[dict[str, Any] | None] = {}

    beta: NonNegative = 0.04
    clip_low: BelowOne = 0.2
    clip_high: NonNegative = 0.2
    clip_rule: ClipName = "ppo"
    kl: KLName = "k3"
    prompt_mask_share: BelowOne = 0.0

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """One fully hidden view; the exact one for the autoregressive family."""
        return process.one_step(rollouts, generator, prompt_mask_share=self.prompt_mask_share)

    def loss(self, inputs: LossInputs) -> Loss:
        """(1/R) sum_b (1/N_b) sum_i [-ppo(exp D_i, A_b) + beta k3(d_i)]."""
        clip = Clip(low=self.clip_low, high=self.clip_high, rule=self.clip_rule)
        terms = token_terms(inputs, clip, self.beta, TOKEN_KL[self.kl])
        return Loss(value=self.reduce(inputs, terms.entries), metrics=terms.metrics)

    def reduce(self, inputs: LossInputs, entries: Float[Tensor, "b l"]) -> Float[Tensor, ""]:
        """From one term per token to the loss: the mean over sequences of the mean over their tokens."""
        return mean_of_sequences(inputs.rollouts, entries)
