"""UniGRPO (2505.15809, MMaDA): GRPO on the tokens hidden at one random level.

Departures: the level is drawn anew in each inner step instead of shifted by a share of mu; it has the same
distribution in each. The code that MMaDA points to (dLLM-RL, method `random_masking`) draws 35 views with levels in
(.1, .9), and its penalty is the KL to the old policy, here to the reference policy. Its advantages are divided by a
standard deviation with n in the denominator, here with n - 1 and a floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.policies.process import ForwardProcess, stratified
from dllm_rl.records.types import LossInputs, Rollouts, Views
from dllm_rl.registry import register
from objectives import NoMaskedPrompt, NonNegative, mean_of_scored
from objectives.grpo import GRPO


@register("objective", "unigrpo")
@dataclass(frozen=True, slots=True, kw_only=True)
class UniGRPO(GRPO):
    """One view whose level is uniform; the mean over each sequence's hidden tokens; slot family: whole slots."""

    name: ClassVar[str] = "unigrpo"
    paper: ClassVar[str] = "2505.15809"
    families: ClassVar[tuple[str, ...]] = ("masked", "block", "slot")
    published: ClassVar[dict[str, Any] | None] = {"beta": 0.0}

    beta: NonNegative = 0.01
    prompt_mask_share: NoMaskedPrompt = 0.0

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """A uniform share of the completion hidden, at least one piece of it."""
        level = stratified(rollouts.num_rows, 1, generator).to(rollouts.completion_ids.device)
        hidden = process.random_units(rollouts, level, generator)
        hidden = hidden | _one_of(process.units(rollouts), generator) & ~hidden.any(-1, keepdim=True)
        return process.hide_units(rollouts, hidden, torch.ones_like(level), generator)

    def reduce(self, inputs: LossInputs, entries: Float[Tensor, "b l"]) -> Float[Tensor, ""]:
        """The mean over each sequence's hidden tokens."""
        return mean_of_scored(inputs.rollouts, inputs.views, entries)


def _one_of(member: Tensor, generator: torch.Generator) -> Tensor:
    keys = torch.rand(member.shape, generator=generator, device=generator.device).to(member.device)
    keys = torch.where(member, keys, -1.0)
    return (keys == keys.amax(-1, keepdim=True)) & member
