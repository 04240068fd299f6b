"""Registers our environments with Gymnasium when it is imported.

`gymnasium.make("harness.gymnasium:dllm_rl/Forms-v0")` imports it, and so may a program of its own.
"""

from harness.environments.gymnasium import register_forms

register_forms()
