"""Inverters: models that write the instruction which the state of a page implies, for backward-inference rewards."""

from dllm_rl.inverters.live import LiveInverter
from dllm_rl.inverters.plain import PlainInverter
from dllm_rl.inverters.policy import (
    InversionExample,
    PolicyInverter,
    as_demonstrations,
    inversion_examples,
    save_inverter,
    train_inverter,
)

__all__ = [
    "InversionExample",
    "LiveInverter",
    "PlainInverter",
    "PolicyInverter",
    "as_demonstrations",
    "inversion_examples",
    "save_inverter",
    "train_inverter",
]
