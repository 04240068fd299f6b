"""Sizes of soaks, which the environment may set: `DLLM_RL_SOAK_PLANS=500 pytest -m soak ...`."""

from __future__ import annotations

import os


def soak_size(name: str, default: int) -> int:
    """The number in DLLM_RL_SOAK_<name>, or the size that the promise names."""
    return int(os.environ.get(f"DLLM_RL_SOAK_{name}", default))
