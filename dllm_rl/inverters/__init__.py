"""Inverters: models that write the instruction which the state of a page implies, for backward-inference rewards."""

from dllm_rl.inverters.policy import PolicyInverter, Reversed, reversed_demonstrations, train_inverter

__all__ = ["PolicyInverter", "Reversed", "reversed_demonstrations", "train_inverter"]
