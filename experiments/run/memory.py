"""Memory that processes may still take on this machine: what is free, or what a control group leaves of its limit."""

from __future__ import annotations

from pathlib import Path

import psutil

_GROUPS = Path("/sys/fs/cgroup")
# Of both versions of control groups: limit, use, statistics, and there the cache of files that gives way.
_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def available_gigabytes() -> float:
    """Return the gigabytes that new processes may take."""
    return min([psutil.virtual_memory().available, *group_bytes(_GROUPS)]) / 1e9


def group_bytes(folder: Path) -> list[int]:
    """Bytes that control groups leave, one for each that has a limit.

    Args:
        folder: Where they are mounted.
    """
    left = []
    for limit, used, statistics, cache in _FILES:
        try:
            lines = (folder / statistics).read_text().splitlines()
            gives_way = next(int(line.split()[1]) for line in lines if line.split()[0] == cache)
            left.append(max(0, int((folder / limit).read_text()) - int((folder / used).read_text()) + gives_way))
        except (OSError, ValueError, StopIteration):
            continue
    return left
