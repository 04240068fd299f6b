"""GRPO on a causal reading of a diffusion model: token i at position i - 1 of the clean completion.

A mis-specified surrogate of the original study, kept so that its failure can be measured: a bidirectional model was
never trained to be read so. The prompt stays clean, and one view serves the new, old and reference policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Rollouts, Views
from dllm_rl.registry import register
from objectives import NoMaskedPrompt
from objectives.grpo import GRPO


@register("objective", "ar_surrogate_grpo")
@dataclass(frozen=True, slots=True, kw_only=True)
class ARSurrogateGRPO(GRPO):
    """GRPO whose token log-probabilities come from causal attention over clean tokens; on autoregressive it is GRPO."""

    name: ClassVar[str] = "ar_surrogate_grpo"
    paper: ClassVar[str] = "2402.03300"

    prompt_mask_share: NoMaskedPrompt = 0.0

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """One clean view under causal attention, read one position to the left."""
        return process.causal_clean(rollouts)
