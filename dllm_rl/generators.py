"""Named random streams for tensors; apart from `dllm_rl.seeding` so that the harness needs no torch."""

from __future__ import annotations

import torch

from dllm_rl.seeding import derive


def generator(seed: int, stream: str, *indices: int | str) -> torch.Generator:
    """A CPU `torch.Generator` of its own for one purpose."""
    return torch.Generator().manual_seed(derive(seed, stream, *indices))
