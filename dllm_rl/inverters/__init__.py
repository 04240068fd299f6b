"""Inverters: models that write the instruction which the state of a page implies, for backward-inference rewards."""

from dllm_rl.inverters.plain import PlainInverter
from dllm_rl.inverters.policy import (
    PolicyInverter,
    Reversed,
    as_demonstrations,
    reversed_demonstrations,
    train_inverter,
)

__all__ = [
    "PlainInverter",
    "PolicyInverter",
    "Reversed",
    "as_demonstrations",
    "reversed_demonstrations",
    "train_inverter",
]
