"""GRPO on denoising under causal attention: hidden tokens read in place, with only their left context visible.

A mis-specified surrogate of the original study, kept so that its failure can be measured. The prompt stays clean, and
one draw serves the new, old and reference policy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.registry import register
from dllm_rl.types import Corruption, Rollouts, Views
from dllm_rl.views import (
    MAX_KAPPA,
    editable,
    exact,
    flow_time,
    hide_units,
    natural_order,
    random_units,
    stratified,
    uniform_noise,
)
from objectives._surrogate import mean_of_scored
from objectives.grpo import GRPO


@register("objective", "causal_denoising_grpo")
@dataclass(frozen=True, slots=True, kw_only=True)
class CausalDenoisingGRPO(GRPO):
    """GRPO on the tokens hidden at a uniform level (flow: all, at a uniform kappa); on autoregressive it is GRPO."""

    name: ClassVar[str] = "causal_denoising_grpo"
    paper: ClassVar[str] = "2402.03300"

    def views(self, rollouts: Rollouts, corruption: Corruption, generator: torch.Generator, inner_step: int) -> Views:
        """One view at a random level under causal attention, unshifted, scoring what is hidden."""
        if corruption.family == "autoregressive":
            return exact(rollouts)
        level = stratified(rollouts.num_rows, 1, generator).to(rollouts.completion_ids.device)
        if corruption.family == "flow":
            view = _noised(rollouts, corruption, MAX_KAPPA * level, generator)
        else:
            hidden = random_units(rollouts, corruption, level, generator)
            view = hide_units(rollouts, corruption, hidden, torch.ones_like(level), generator)
            if corruption.family == "slot":
                view = replace(view, order=natural_order(rollouts, 1))
        return replace(view, kind="causal_noised", read="causal")

    def reduce(self, rollouts: Rollouts, views: Views, entries: Float[Tensor, "b l"]) -> Float[Tensor, ""]:
        """The mean over each sequence's hidden tokens."""
        return mean_of_scored(rollouts, views, entries)


def _noised(
    rollouts: Rollouts, corruption: Corruption, kappa: Float[Tensor, "1 b"], generator: torch.Generator
) -> Views:
    ids = rollouts.completion_ids
    uniform = torch.rand(1, *ids.shape, generator=generator, device=generator.device).to(ids.device)
    is_clean = (uniform < kappa[..., None]) & editable(rollouts, corruption)
    tokens = torch.where(is_clean, ids, uniform_noise(rollouts, corruption, 1, generator))
    return replace(exact(rollouts), tokens=tokens, time=flow_time(kappa, corruption))
