"""Whose failure an exception is: the environment's (retried, then masked), or ours (raised). The agent's are outcomes.

    environment   browser or page crash, driver gone, refused or reset connection, 5xx, navigation timeout, a page
                  that no longer answers
    harness       every exception not named above: our bug, and a run stops loudly instead of learning from it
    agent         never leaves `execute` as an exception: a malformed line, an unknown ref, a refused value are notes
                  in the outcome, and so is a deadline that passed while the page still answered

Deadlines scale with the measured load, so that a busy machine never decides an outcome.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeout

from dllm_rl.errors import BrowserMissingError, HarnessError

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
    """How much slower than usual this machine is, from recent page loads and the system's load.

    Deadlines are given in seconds of an idle machine and are multiplied by `scale`, 1 to 20.
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


ENVIRONMENT_MESSAGES = (
    "net::ERR_",
    "Page crashed",
    "Target crashed",
    "Target closed",
    "Target page, context or browser has been closed",
    "Browser has been closed",
    "Browser closed",
    "browser has disconnected",
    "Connection closed",
    "has been collected to prevent unbounded heap growth",
    "Execution context was destroyed",
    "Frame was detached",
    "Navigation interrupted",
    "interrupted by another navigation",
    "Download is starting",
    "Failed to launch",
    "Browser.newContext",
    "Protocol error",
)


class EnvironmentFaultError(Exception):
    """The rollout was lost to the environment; `run` tries again, and masks it when that does not help.

    Attributes:
        generation: Number of the browser in which it happened; None where there was none.
        line: Line of the plan that ran then; None where none did.
    """

    generation: int | None = None
    line: int | None = None


class AgentDeadlineError(Exception):
    """A deadline passed while the page still answered: the plan's doing, and part of its outcome."""


class AgentLeftError(Exception):
    """A click led out of the site, where nothing answers: the plan's doing, and part of its outcome."""


def is_cut_redirect(status: int) -> bool:
    """Whether a document came with the status of a redirect: its answer was cut short before it said where to."""
    return 300 <= status < 400 and status != 304


def is_environment(error: BaseException) -> bool:
    """Return whether the environment caused this exception."""
    if isinstance(error, EnvironmentFaultError | PlaywrightTimeout | asyncio.TimeoutError | ConnectionError):
        return True
    return isinstance(error, PlaywrightError) and any(text in str(error) for text in ENVIRONMENT_MESSAGES)


@contextmanager
def attribute(phase: str) -> Iterator[None]:
    """Turn whatever is raised inside into EnvironmentFaultError or HarnessError; AgentDeadlineError passes through."""
    try:
        yield
    except (AgentDeadlineError, HarnessError, BrowserMissingError, EnvironmentFaultError):
        raise
    except Exception as error:
        reason = f"{phase}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if is_environment(error):
            raise EnvironmentFaultError(reason) from error
        raise HarnessError(f"{reason}. This is a bug of the harness: please report it with this trace.") from error
