"""Informed masking (2609.25927) of ESPO: masks favour tokens whose writing moved the confidence around them little.

The priority of a token is the sum of |c_j after - c_j before| over the columns j within `window` that were still open
when it was written; c_j is the largest probability at column j. A mask hides columns one after another without
replacement, each with odds exp(sharpness x (max - priority) / (max - min)). What decided others thus stays visible, and
what is asked for can be told from it.
Departures: confidences are those of one more forward a step, there of the rollout's own; several tokens of a step share
what followed it, as there. Levels are stratified, and no view hides the complement of another's mask, which would hide
what the first keeps. As there, weights are those of uniform masks, so the terms estimate no ELBO (the paper found
importance weights to change nothing). No public code to compare with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dllm_rl.advantages import AdvantageName
from dllm_rl.errors import ConfigError
from dllm_rl.policies.process import ForwardProcess, stratified, trajectory_of
from dllm_rl.records.types import Loss, LossInputs, Rollouts, Views
from dllm_rl.registry import register
from objectives import BelowOne, Clip, Count, Method, NonNegative, mean_of_rows, sequence_terms


@register("objective", "informed_espo")
@dataclass(frozen=True, slots=True, kw_only=True)
class InformedESPO(Method):
    """ESPO on informed masks.

    Attributes:
        num_draws: Views.
        sharpness: Of the odds; 0 for uniform masks.
        window: Columns on each side whose confidence counts.
    """

    name: ClassVar[str] = "informed_espo"
    paper: ClassVar[str] = "2609.25927"
    level: ClassVar[str] = "sequence"
    families: ClassVar[tuple[str, ...]] = ("masked",)
    requires: ClassVar[tuple[str, ...]] = ("trajectory", "answers")
    version: ClassVar[int] = 1

    beta: NonNegative = 3e-3
    advantage: AdvantageName = "leave_one_out"
    clip_low: BelowOne = 0.2
    clip_high: NonNegative = 0.2
    num_draws: Count = 4
    sharpness: NonNegative = 1.5
    window: Count = 10

    @property
    def num_views(self) -> int | None:
        """One for each draw."""
        return self.num_draws

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """Views that hide a uniform number of columns, those of low priority first by their odds."""
        member = process.units(rollouts)
        total = member.sum(-1)
        level = stratified(rollouts.num_rows, self.num_draws, generator).to(member.device)
        count = (level * (total + 1)).floor().clamp(max=total)
        # A race of exponential clocks: the first n to ring are n draws without replacement by these odds.
        clock = -torch.log1p(-process.random_keys(rollouts, self.num_draws, generator))
        clock = clock * (-self.sharpness * downstream(priorities(rollouts, self.window), member)).exp()
        rank = torch.where(member, clock, torch.inf).argsort(-1).argsort(-1)
        weight = (total + 1) / count.clamp(min=1) / self.num_draws
        return process.hide_units(rollouts, (rank < count[..., None]) & member, weight, generator)

    def loss(self, inputs: LossInputs) -> Loss:
        """(1/R) sum_b [-ppo(exp(DB / N_b), A_b) + beta dB^2 / (2 N_b)], as ESPO."""
        terms = sequence_terms(inputs, Clip(low=self.clip_low, high=self.clip_high), self.beta)
        return Loss(value=mean_of_rows(inputs.rollouts, terms.entries), metrics=terms.metrics)


def priorities(rollouts: Rollouts, window: int) -> Float[Tensor, "b l"]:
    """How far writing a token moved the confidences near it that were still open; 0 where none was, or none is known.

    Raises ConfigError where the rollouts carry no intermediate answers.
    """
    if rollouts.answers is None:
        raise ConfigError(
            "objective 'informed_espo' needs intermediate answers, which these rollouts lack; see "
            "dllm_rl.training.intermediate."
        )
    certainty, written = rollouts.answers.certainty, trajectory_of(rollouts).commit_step
    column = torch.arange(certainty.shape[-1], device=certainty.device)
    is_near = ((column[:, None] - column).abs() <= window).to(certainty.dtype)
    priority = torch.zeros_like(certainty[:, 0])
    after = torch.zeros_like(priority)
    for step in range(certainty.shape[1] - 1, -1, -1):
        before = certainty[:, step]
        # Columns that have no certainty afterwards are open no more, the token's own among them.
        moved = torch.where(after > 0, (after - before).abs(), 0.0) @ is_near
        priority = torch.where(written == step, moved, priority)
        after = torch.where((before > 0).any(-1, keepdim=True), before, after)
    return priority


def downstream(priority: Float[Tensor, "b l"], member: Bool[Tensor, "b l"]) -> Float[Tensor, "b l"]:
    """(max - priority) / (max - min) over the members of a row; 0 where all are equal."""
    most = priority.masked_fill(~member, -torch.inf).amax(-1, keepdim=True)
    least = priority.masked_fill(~member, torch.inf).amin(-1, keepdim=True)
    spread = torch.where(most > least, most - least, 1.0)
    return torch.where(member & (most > least), (most - priority) / spread, 0.0)
