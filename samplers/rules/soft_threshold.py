"""A confidence threshold with soft edges, whose choice of positions has a known probability (after 2505.22618).

The most certain open position is always written; each other one on its own with probability
sigmoid((log-odds - log-odds of the threshold) / spread). So the whole distribution of what a step does is known, and
`mask_aware_grpo` trains the positions with the tokens. As the spread goes to 0 it is `threshold`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.likelihood.positions import PositionLaw
from dllm_rl.registry import register
from samplers.loop.context import StepContext
from samplers.loop.sampling import ORDER
from samplers.rules.threshold import ThresholdSampler


@register("sampler", "soft_threshold")
@dataclass(frozen=True, slots=True, kw_only=True)
class SoftThresholdSampler(ThresholdSampler):
    """Writes the best position, and each other one by a coin that its log-odds weigh.

    Under the grammar, and with a number of steps after which everything is written, the record does not say the
    probabilities of positions.

    Attributes:
        spread: Of the log-odds around those of the threshold.
    """

    name: ClassVar[str] = "soft_threshold"
    spread: float = 1.0

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """A coin for every open position, by keyed noise, and the best one."""
        law = self._law(int(context.block_step.in_block.sum()))
        chance = law.logit(context.log_odds.double()).sigmoid()
        return (context.noise(ORDER) < chance) | context.best(context.log_odds, 1)

    def position_law(self, block_length: int) -> PositionLaw | None:
        """Independent coins beside the best position."""
        return None if self.hides_order else self._law(block_length)

    @property
    def hides_order(self) -> bool:
        """Yes under the grammar, whose log-odds a replay does not see, and where a last step writes everything."""
        return self.grammar or self.num_steps is not None

    def _law(self, block_length: int) -> PositionLaw:
        threshold = math.log(self.threshold / (1 - self.threshold))
        return PositionLaw(threshold=threshold, spread=self.spread, block_length=block_length)

    def __post_init__(self) -> None:
        ThresholdSampler.__post_init__(self)
        if not self.spread > 0:
            raise ConfigError(f"spread={self.spread}: expected a positive number; `threshold` is its limit at 0")
