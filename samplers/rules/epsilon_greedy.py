"""Confidence threshold with a share of steps that look elsewhere: for training, where a certain order explores nothing.

A rule that writes what it is surest of decides each question at the column that is surest of it, for all completions of
a prompt alike. Here some steps write a column drawn uniformly, so that completions meet the question at different ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.registry import register
from samplers.loop.context import StepContext
from samplers.loop.sampling import COIN, ORDER
from samplers.rules.threshold import ThresholdSampler


@register("sampler", "epsilon_greedy")
@dataclass(frozen=True, slots=True, kw_only=True)
class EpsilonGreedySampler(ThresholdSampler):
    """With probability `epsilon` a row's step unmasks one position drawn uniformly, else what `threshold` unmasks.

    Of n open positions each is written with probability epsilon / n, and with 1 - epsilon in addition where the
    threshold chooses it. The policy moves these probabilities only where the choice of the threshold jumps: almost
    everywhere the gradient of the expected reward is that of the token draws alone, which replaying methods score.
    `threshold` with `epsilon` 0 is the rule to evaluate with.

    Attributes:
        epsilon: Chance of a uniform draw, in each step and row.
    """

    name: ClassVar[str] = "epsilon_greedy"
    paper: ClassVar[str] = "2505.22618"
    threshold: float = 0.97
    epsilon: float = 0.2

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """One position by keyed noise where the row's coin says so, else p1 >= threshold."""
        # The coin is the noise of the row's first open column, which other rows have no part in.
        coin = context.noise(COIN).gather(1, context.is_open.long().argmax(dim=1, keepdim=True))
        sure = ThresholdSampler.choose(self, context)
        return torch.where(coin < self.epsilon, context.best(context.noise(ORDER), 1), sure)

    def __post_init__(self) -> None:
        ThresholdSampler.__post_init__(self)
        if not 0 <= self.epsilon <= 1:
            raise ConfigError(f"epsilon={self.epsilon}: expected a probability from 0 to 1")
