"""Which GPU a process runs units on, where several run those of one grid side by side on a machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from experiments.design.config import Preset, loaded_levels

PLACES = ".gpus"


@contextmanager
def own_gpu(preset: Preset, root: Path) -> Iterator[None]:
    """Have plain `cuda` mean a GPU of this process while the context is open; visible ones are given out in turn.

    A process takes the first place of its machine that no other holds in this run folder, by a file lock that dies with
    it, so that a worker that is started again has the place of the one that died. Named GPUs are left as they are.
    """
    if not any(level.device == "cuda" for level in loaded_levels(preset.policies).values()):
        yield
        return
    from dllm_rl.policies.devices import at_place

    with ExitStack() as held:
        held.enter_context(at_place(_take_place(root / PLACES, held)))
        yield


def _take_place(folder: Path, held: ExitStack) -> int:
    """Return the number of the first place that is free; it is held as long as the stack is open."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in count():
        lock = FileLock(folder / f"{socket.gethostname()}-{number}.lock")
        try:
            held.enter_context(lock.acquire(timeout=0))
        except Timeout:
            continue
        return number
    raise AssertionError("there are as many places as there are numbers")
