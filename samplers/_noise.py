"""Counter-based noise: u = f(seed, row id, canvas position, step, stream), so no draw depends on batch or history.

The mixer is splitmix64's finaliser (Steele, Lea, Flood 2014), in wrapping int64.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

TOKEN, JUMP, SOURCE, ORDER, REMASK, WITHIN = range(6)

_M1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_M2 = 0x94D049BB133111EB - (1 << 64)
_STEP = 0x9E3779B97F4A7C15 - (1 << 64)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift_right(z, 30)) * _M1
    z = (z ^ _shift_right(z, 27)) * _M2
    return z ^ _shift_right(z, 31)


def uniform(
    seed: int, row_ids: Int[Tensor, " b"], positions: Int[Tensor, " c"], step: int | Tensor, stream: int
) -> Float[Tensor, "b c"]:
    """Float64 uniforms in (0, 1), one per (row id, position); step is a number or one per row."""
    steps = torch.as_tensor(step, dtype=torch.long).reshape(-1, 1)
    return _keyed(seed, row_ids.reshape(-1, 1), positions.reshape(1, -1), steps, torch.tensor([[stream]]))


def uniform_at(
    seed: int, row_ids: Int[Tensor, " n"], positions: Int[Tensor, " n"], step: int | Tensor, stream: int
) -> Float[Tensor, " n"]:
    """The same uniforms at chosen places only: one per pair of row id and position; step is one or one per pair."""
    steps = torch.as_tensor(step, dtype=torch.long).reshape(-1)
    return _keyed(seed, row_ids, positions, steps, torch.tensor([stream]))


def _keyed(seed: int, *parts: Tensor) -> Tensor:
    z = torch.full((1,), seed, dtype=torch.long)
    for part in parts:
        z = _mix((z ^ part) + _STEP)
    return (_shift_right(z, 11).double() + 0.5) / float(1 << 53)
