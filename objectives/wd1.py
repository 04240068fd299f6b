"""wd1 (2507.08838): no ratio at all; each completion is weighted by softmax(A) - softmax(-A) over its group.

Departure: the softmax runs over the group, as in the paper; the public code's runs over the micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl import advantages as adv
from dllm_rl.errors import ConfigError
from dllm_rl.options import added
from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Loss, LossInputs, MeanOver, Rollouts, Views
from dllm_rl.registry import register
from objectives import BelowOne, Count, Method, NoPenalty, scored, sequence_sum, sum_of_rows


@register("objective", "wd1")
@dataclass(frozen=True, slots=True, kw_only=True)
class WD1(Method):
    """Weighted log-likelihood on the one-step view. `advantages` returns the weights, which sum to 0 over a group.

    Attributes:
        num_strata: Parts of the canvas of which one is hidden at a time (DACA-GRPO, 2605.16342); 1 hides all at once.
    """

    name: ClassVar[str] = "wd1"
    paper: ClassVar[str] = "2507.08838"
    level: ClassVar[str] = "sequence"
    needs_old: ClassVar[bool] = False
    mean_over: ClassVar[MeanOver] = MeanOver.NONE
    version: ClassVar[int] = 3
    published: ClassVar[dict[str, Any] | None] = {}

    beta: NoPenalty = 0.0
    # A number that is added to all advantages of a group changes no weight, so `shrunk` would be `centred`.
    advantage: Literal["centred", "normalised", "leave_one_out"] = "centred"
    prompt_mask_share: BelowOne = 0.0
    num_strata: Count = added(default=1)

    def __post_init__(self) -> None:
        if self.num_strata > 1 and self.prompt_mask_share:
            raise ConfigError(
                f"prompt_mask_share={self.prompt_mask_share} was given, which views of {self.num_strata} strata do not "
                "read. Leave it out."
            )

    @property
    def num_views(self) -> int | None:
        """One for each stratum."""
        return self.num_strata

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """One fully hidden view, or strata; the exact one for the autoregressive family."""
        if self.num_strata > 1:
            return process.strata(rollouts, generator, num_strata=self.num_strata)
        return process.one_step(rollouts, generator, prompt_mask_share=self.prompt_mask_share)

    def advantages(self, rollouts: Rollouts) -> Float[Tensor, " b"]:
        """W = softmax(A) - softmax(-A) over the valid rows of each group."""
        relative = adv.advantages(rollouts, self.advantage)
        in_group = (rollouts.group_ids[:, None] == rollouts.group_ids) & rollouts.valid
        up = relative.masked_fill(~in_group, -torch.inf).softmax(-1).diagonal()
        down = (-relative).masked_fill(~in_group, -torch.inf).softmax(-1).diagonal()
        weight = up - down
        return torch.where(rollouts.valid, weight, torch.zeros_like(weight))

    def loss(self, inputs: LossInputs) -> Loss:
        """-(1/groups) sum_b W_b sum_i logp_i."""
        entries = -inputs.advantages * sequence_sum(inputs.views, scored(inputs.views, inputs.new))
        total = sum_of_rows(inputs.rollouts, entries)
        return Loss(value=total / max(inputs.rollouts.totals.groups, 1), metrics={})
