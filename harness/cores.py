"""How many cores this process may use: affinity and the quota of its control group, not what the host has."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")


@cache
def usable_cores() -> int:
    """At least 1."""
    has_affinity = hasattr(os, "sched_getaffinity")
    allowed = len(os.sched_getaffinity(0)) if has_affinity else (os.cpu_count() or 1)
    return max(1, min(allowed, quota_cores(_QUOTA_FILE) or allowed))


def quota_cores(path: Path) -> int | None:
    """Cores that a control group may keep busy, rounded up; None without a quota, or without such a file."""
    try:
        quota, period = path.read_text().split()
        return -(-int(quota) // int(period))
    except (OSError, ValueError):
        return None
