"""GRPO on a causal reading of a diffusion model: token i at position i - 1 of the clean completion.

A mis-specified surrogate of the original study, kept so that its failure can be measured: a bidirectional model was
never trained to be read so. The prompt stays clean, and one view serves the new, old and reference policy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from dllm_rl.registry import register
from dllm_rl.types import Corruption, Rollouts, Views
from dllm_rl.views import exact, flow_time
from objectives.grpo import GRPO

# The flow family is told that (almost) nothing is noise.
CLEAN_TIME = 1 - 1e-4


@register("objective", "ar_surrogate_grpo")
@dataclass(frozen=True, slots=True, kw_only=True)
class ARSurrogateGRPO(GRPO):
    """GRPO whose token log-probabilities come from causal attention over clean tokens; on autoregressive it is GRPO."""

    name: ClassVar[str] = "ar_surrogate_grpo"
    paper: ClassVar[str] = "2402.03300"

    def views(self, rollouts: Rollouts, corruption: Corruption, generator: torch.Generator, inner_step: int) -> Views:
        """One clean view under causal attention, read one position to the left."""
        view = exact(rollouts)
        if corruption.family == "autoregressive":
            return view
        view = replace(view, kind="causal_shifted", read="causal_shifted")
        if corruption.family == "flow":
            time = torch.full((1, rollouts.num_rows), CLEAN_TIME, device=view.tokens.device)
            view = replace(view, time=flow_time(time, corruption))
        return view
