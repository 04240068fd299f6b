"""Options that mean nothing are refused when a sampler is made, not met as odd canvases later."""

from __future__ import annotations

import math
from typing import Any

from dllm_rl.errors import ConfigError


def check_options(sampler: Any) -> None:
    """Raise ConfigError for a temperature that is negative or no number, and for steps or blocks under one."""
    if not (math.isfinite(sampler.temperature) and sampler.temperature >= 0):
        raise ConfigError(f"temperature={sampler.temperature}: give 0 for the most likely tokens, or a positive number")
    for name, what in (("num_steps", "denoising steps"), ("block_length", "columns of a block")):
        value = getattr(sampler, name, None)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ConfigError(f"{name}={value}: the number of {what} is an integer of at least 1")
