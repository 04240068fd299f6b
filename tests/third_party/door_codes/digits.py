"""A reward that counts digits in their place."""

from dataclasses import dataclass
from typing import ClassVar

from dllm_rl.errors import ConfigError
from dllm_rl.records import Outcome
from dllm_rl.registry import register
from harness.rewards import OutcomeReward


@register("reward", "digits")
@dataclass(frozen=True, slots=True, kw_only=True)
class Digits(OutcomeReward):
    """1 for an open door, else a share of `unopened`.

    unopened: What the right digits before a door that stays shut are worth.
    """

    version: ClassVar[int] = 1

    unopened: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.unopened < 1:
            raise ConfigError(f"unopened={self.unopened}: give a share of at least 0 and below 1")

    def __call__(self, outcome: Outcome) -> float:
        if outcome.is_success:
            return 1.0
        (field,) = outcome.fields
        typed, wanted = "".join(field.dom or ()), field.wanted[0]
        num_right = sum(given == digit for given, digit in zip(typed, wanted, strict=False))
        return self.unopened * num_right / len(wanted)
