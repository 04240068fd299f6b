"""State of one unit of work: what status.json says, and who holds the unit's lock."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from dllm_rl.files import write_json

_CLAIM_SECONDS = 0.3
State = Literal["done", "running", "failed", "owed"]
LABELS = ("done", "stopped", "running", "failed", "owed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """State of one unit.

    Attributes:
        state: Where it stands.
        cause: Why it failed, was interrupted, or (of a unit that an alarm ended early) the alarm.
        seconds: Wall time spent, over all attempts.
        digest: Of the evaluation that was done last.
        pid: Process that works on it.
        stopped_at: Last step of a training that an alarm ended early; it is evaluated like any other.
        evaluations: Hash of the rows of each finished evaluation by its digest, so that damage to one is noticed.
        taken_from: Name and digest of the grid that trained it, where `--reuse` copied it from another run's folder.
    """

    state: State = "owed"
    cause: str = ""
    seconds: float = 0.0
    digest: str = ""
    pid: int = 0
    stopped_at: int | None = None
    evaluations: dict[str, str] = field(default_factory=dict)
    taken_from: str = ""

    @property
    def is_trained(self) -> bool:
        """Whether training has ended, well or not, whichever evaluation is still owed: no row of metrics follows."""
        return self.state in ("done", "failed") or bool(self.evaluations)

    @property
    def label(self) -> str:
        """The state in a word for people: a run that is done because an alarm stopped it is `stopped`."""
        return "stopped" if self.state == "done" and self.stopped_at is not None else self.state


def read_status(folder: Path) -> Status:
    """Status of the unit in a folder, whichever evaluation it tells of; `running` without a living owner is `owed`."""
    path = folder / "status.json"
    try:
        status = Status(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return Status()
    if status.state == "running" and not is_claimed(folder):
        return replace(status, state="owed", cause="interrupted", pid=0)
    return status


def write_status(folder: Path, status: Status) -> None:
    """Record the state of a unit."""
    write_json(folder / "status.json", asdict(status))


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Claim a unit for this process; yields False where another process holds it. The claim dies with its process.

    It is tried for a moment, since whoever looks at a state holds the lock for an instant.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=_CLAIM_SECONDS, poll_interval=0.02)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_claimed(folder: Path) -> bool:
    """Whether some process works on the unit now."""
    try:
        lock = os.open(folder / ".lock", os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        # A shared lock needs no right to write, so that one may look at the runs of others.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
