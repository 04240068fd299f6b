"""EGSPO-SA (2603.12554): EGSPO whose steps have advantages of their own, from what each canvas would have become.

The return of a step is R + lam (R - r_s), over 1 + lam: r_s is the reward of the canvas before the step, filled in at
once. A step before which the answer was worse than what came of it is worth more.
Departures beside those of EGSPO: the canvas is filled in by draws, in the public code by the most likely tokens. Steps
are compared with those of the same number in the group, there with those of the same rank among the chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.advantages import ESTIMATORS
from dllm_rl.errors import ConfigError
from dllm_rl.records.types import Rollouts
from dllm_rl.registry import register
from objectives import NonNegative
from objectives.egspo import EGSPO


@register("objective", "egspo_sa")
@dataclass(frozen=True, slots=True, kw_only=True)
class EGSPOSA(EGSPO):
    """EGSPO with stepwise advantages.

    Attributes:
        lam: Weight of what a step and those after it gained; at 0 it is EGSPO.
    """

    name: ClassVar[str] = "egspo_sa"
    version: ClassVar[int] = 3
    requires: ClassVar[tuple[str, ...]] = ("trajectory", "step_rewards", "answers")

    lam: NonNegative = 1.0

    def advantages(self, rollouts: Rollouts) -> Float[Tensor, "b s"]:
        """Group-relative advantages of (R + lam (R - r_s)) / (1 + lam), step by step."""
        if rollouts.step_rewards is None:
            raise ConfigError(
                "objective 'egspo_sa' needs step_rewards, which these rollouts lack; see dllm_rl.training.intermediate."
            )
        final, estimate = rollouts.rewards[:, None], ESTIMATORS[self.advantage]
        returns = (final + self.lam * (final - rollouts.step_rewards)) / (1 + self.lam)
        columns = [estimate(column, rollouts.group_ids, rollouts.valid) for column in returns.unbind(1)]
        return torch.stack(columns, dim=1)
