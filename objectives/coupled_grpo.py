"""Coupled-GRPO (2506.20639, DiffuCoder): each token scored in a fully hidden view and in one of two complementary ones.

Departures: the weights 1/2, 1/(4t), 1/(4(1-t)) sum to 1 per token on average; the public code's 1/2, 1/(2t), 1/(2(1-t))
sum to 1.5 (`exact_scale=False`). The level t is drawn for each row, there for each batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.advantages import AdvantageName
from dllm_rl.policies.process import ForwardProcess, stratified
from dllm_rl.records.types import LossInputs, Rollouts, Views
from dllm_rl.registry import register
from objectives import BelowOne, NoMaskedPrompt, NonNegative, mean_of_tokens
from objectives.grpo import GRPO

LOWEST_LEVEL, HIGHEST_LEVEL = 0.2, 0.8


@register("objective", "coupled_grpo")
@dataclass(frozen=True, slots=True, kw_only=True)
class CoupledGRPO(GRPO):
    """GRPO whose token log-probability is a weighted sum over three views; slot family: whole slots are hidden."""

    name: ClassVar[str] = "coupled_grpo"
    paper: ClassVar[str] = "2506.20639"
    families: ClassVar[tuple[str, ...]] = ("masked", "block", "slot")
    published: ClassVar[dict[str, Any] | None] = {"exact_scale": False}

    beta: NonNegative = 0.01
    advantage: AdvantageName = "leave_one_out"
    clip_low: BelowOne = 0.5
    clip_high: NonNegative = 0.5
    prompt_mask_share: NoMaskedPrompt = 0.0
    exact_scale: bool = True

    @property
    def num_views(self) -> int | None:
        """Three."""
        return 3

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """Everything hidden, a random share t in (.2, .8) hidden, and its complement hidden."""
        level = stratified(rollouts.num_rows, 1, generator).to(rollouts.completion_ids.device)
        level = LOWEST_LEVEL + (HIGHEST_LEVEL - LOWEST_LEVEL) * level
        member = process.units(rollouts)
        share = process.random_units(rollouts, level, generator)
        hidden = torch.cat([member[None], share, member & ~share])
        part = 4 if self.exact_scale else 2
        weight = torch.cat([torch.full_like(level, 0.5), 1 / (part * level), 1 / (part * (1 - level))])
        return process.hide_units(rollouts, hidden, weight, generator)

    def reduce(self, inputs: LossInputs, entries: Float[Tensor, "b l"]) -> Float[Tensor, ""]:
        """Every token of the step weighs the same."""
        return mean_of_tokens(inputs.rollouts, entries)
