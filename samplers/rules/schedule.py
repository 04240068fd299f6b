"""How many positions a step unmasks: equal shares, of what is left of a block or of whole ones, or Dream's schedule
(2508.15487).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from dllm_rl.errors import ConfigError
from samplers.loop.denoise import spread
from samplers.rules.base import UnmaskingRule

# Noise level at which Dream's schedule ends.
_LAST_LEVEL = 1e-3


def dream_quotas(num_columns: int, num_steps: int) -> list[int]:
    """Of n masked positions the whole part of n (1 - s / t), where the noise level falls from t to s; in the end all.

    Levels are evenly spaced from 1 to 1e-3, so the first steps get less than an equal share and the last one more.
    Steps that would unmask nothing are left out, since they only cost a forward. In float32, as in Dream's code.
    """
    level = torch.linspace(1, _LAST_LEVEL, num_steps + 1)
    left, quotas = num_columns, []
    for before, after in itertools.pairwise(level[:-1]):
        quotas.append(int(left * (1 - after / before)))
        left -= quotas[-1]
    return [quota for quota in (*quotas, left) if quota]


ScheduleName = Literal["equal", "dream", "whole_block"]
SCHEDULES: dict[ScheduleName, Callable[[int, int], list[int]]] = {
    "equal": spread,
    "dream": dream_quotas,
    "whole_block": spread,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledRule(UnmaskingRule):
    """Base of the rules that Dream has too.

    Attributes:
        schedule: `equal` shares of a block's columns, or those of `dream`. `whole_block`: a block that the prompt has
            begun, or the canvas ends, is written in the shares of a whole one (SDAR, LLaDA2).
    """

    schedule: ScheduleName = "equal"

    def __post_init__(self) -> None:
        UnmaskingRule.__post_init__(self)
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"schedule={self.schedule!r}: give one of {', '.join(SCHEDULES)}")

    def quotas(self, num_columns: int, num_steps: int) -> list[int]:
        """As the schedule says."""
        return SCHEDULES[self.schedule](num_columns, num_steps)

    @property
    def counts_whole_blocks(self) -> bool:
        """As the schedule says."""
        return self.schedule == "whole_block"
