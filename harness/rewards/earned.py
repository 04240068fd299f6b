"""What an environment pays by itself, such as the dense reward of an OpenEnv server, brought into [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dllm_rl.errors import ConfigError
from dllm_rl.records.tasks import RETURN, Outcome
from dllm_rl.registry import register
from dllm_rl.reward import OutcomeReward


@register("reward", "earned")
@dataclass(frozen=True, slots=True, kw_only=True)
class Earned(OutcomeReward):
    """The sum of the environment's own rewards over an episode, from `least` (pays 0) to `most` (pays 1).

    An episode that is cut short is paid for what it earned until then. Where an environment says nothing of the kind, 1
    for a success.

    Attributes:
        least: Sum that is worth nothing, as everything below it is.
        most: Sum that is worth 1, as everything above it is.
    """

    version: ClassVar[int] = 1
    needs_return: ClassVar[bool] = True

    least: float = 0.0
    most: float = 1.0

    def __post_init__(self) -> None:
        if self.least >= self.most:
            raise ConfigError(f"least is {self.least:g} and most {self.most:g}; expected least below most.")

    def __call__(self, outcome: Outcome) -> float:
        """Return the share of the way from least to most."""
        told = next((item for item in outcome.fields if item.name == RETURN), None)
        if told is None:
            return float(outcome.is_success)
        total = float(told.server[0]) if told.server else self.least
        return min(1.0, max(0.0, (total - self.least) / (self.most - self.least)))
