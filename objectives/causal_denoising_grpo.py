"""GRPO on denoising under causal attention: hidden tokens read in place, with only their left context visible.

A mis-specified surrogate of the original study, kept so that its failure can be measured. The prompt stays clean, and
one draw serves the new, old and reference policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import LossInputs, Rollouts, Views
from dllm_rl.registry import register
from objectives import NoMaskedPrompt, mean_of_scored
from objectives.grpo import GRPO


@register("objective", "causal_denoising_grpo")
@dataclass(frozen=True, slots=True, kw_only=True)
class CausalDenoisingGRPO(GRPO):
    """GRPO on the tokens hidden at a uniform level (flow: all, at a uniform kappa); on autoregressive it is GRPO."""

    name: ClassVar[str] = "causal_denoising_grpo"
    paper: ClassVar[str] = "2402.03300"

    prompt_mask_share: NoMaskedPrompt = 0.0

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """One view at a random level under causal attention, unshifted, scoring what is hidden."""
        return process.causal_noised(rollouts, generator)

    def reduce(self, inputs: LossInputs, entries: Float[Tensor, "b l"]) -> Float[Tensor, ""]:
        """The mean over each sequence's hidden tokens."""
        return mean_of_scored(inputs.rollouts, inputs.views, entries)
