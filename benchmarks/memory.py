"""Two measures of memory: what autograd holds for the backward pass, and a process's resident memory (Linux)."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


class Box:
    """Holds a tensor that autograd saved, and can be watched for its end."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


class Held:
    """Bytes that autograd holds for backward now, and the most it held; see `held_tensors`."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self._count: dict[int, int] = {}

    def add(self, tensor: torch.Tensor) -> Any:
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if self._count.get(key, 0) == 0:
            self.now += size
            self.peak = max(self.peak, self.now)
        self._count[key] = self._count.get(key, 0) + 1
        box = Box(tensor)
        weakref.finalize(box, self._drop, key, size)
        return box

    def _drop(self, key: int, size: int) -> None:
        self._count[key] -= 1
        if self._count[key] == 0:
            self.now -= size


@contextmanager
def held_tensors() -> Iterator[Held]:
    """Count what autograd saves inside the block, parameters included once."""
    held = Held()
    with torch.autograd.graph.saved_tensors_hooks(held.add, lambda box: box.tensor):
        yield held


def forget_peak() -> None:
    """Start the peak of resident memory anew, at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def resident(name: str) -> int:
    """Bytes of an entry of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name + ":"))
