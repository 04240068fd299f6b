"""Deadlines that scale with the measured load, so that a busy machine never decides an outcome; usable cores."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")
USUAL_LOAD_SECONDS = 0.06
MAX_SCALE = 20.0


@cache
def usable_cores() -> int:
    """Return how many cores this process may use, at least 1: by affinity and quota, whatever the host has."""
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


@dataclass(slots=True)
class Pace:
    """How much slower than usual this machine answers now: the page loads seen lately, and the system's load.

    Deadlines are given in seconds of an idle machine and are stretched by `scale`, 1 to 20.
    """

    recent_load_seconds: float = USUAL_LOAD_SECONDS
    num_cores: int = field(default_factory=usable_cores)

    def saw_load(self, seconds: float) -> None:
        """Take note of how long a page took to load."""
        self.recent_load_seconds += 0.2 * (seconds - self.recent_load_seconds)

    @property
    def scale(self) -> float:
        """Factor on every deadline."""
        queue = os.getloadavg()[0] / self.num_cores if hasattr(os, "getloadavg") else 1.0
        return min(MAX_SCALE, max(1.0, queue, self.recent_load_seconds / USUAL_LOAD_SECONDS))

    def seconds(self, idle_seconds: float) -> float:
        """Stretch a deadline given for an idle machine."""
        return idle_seconds * self.scale
