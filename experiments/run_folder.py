"""The folder of a run: where things lie, states of its units, and files that are whole or absent.

config.json  results.parquet  report.html  report.json
warmstart/<policy>-<digest>/        evaluation-<digest>.parquet  status.json  cell.json  waypoints/
cells/<cell>-<digest>/seed<k>/      the same, and metrics.jsonl  rollouts.jsonl  commit_order.jsonl  alarms.json
                                    checkpoint/

A folder of cells is keyed by its training, an evaluation by its own digest: another evaluation trains nothing again and
leaves the earlier one as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from dllm_rl.errors import ConfigError

WAYPOINTS_FOLDER = "waypoints"
_CLAIM_SECONDS = 0.3
State = Literal["done", "running", "failed", "owed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """State of one unit. digest: of the evaluation that was done last; seconds: wall time spent, over all attempts.

    stopped_at: last step of a training that an alarm ended early, with the alarm as cause; it is evaluated like any.
    evaluations: hash of the rows of each finished evaluation by its digest, so that damage to one is noticed.
    """

    state: State = "owed"
    cause: str = ""
    seconds: float = 0.0
    digest: str = ""
    pid: int = 0
    stopped_at: int | None = None
    evaluations: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The state in a word for people: a run that is done because an alarm stopped it is `stopped`."""
        return "stopped" if self.state == "done" and self.stopped_at is not None else self.state


def make_folder(root: Path) -> None:
    """Make the folder of a run; raises ConfigError where nothing can be written there."""
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"'{root}' cannot be the folder of a run ({error.strerror}). Give another with --out."
        ) from None
    if not os.access(root, os.W_OK):
        raise ConfigError(f"nothing can be written to '{root}'. Give another folder with --out.")


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Hand out a temporary path that becomes `path` on success; a kill in between leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two machines on a shared folder may have processes of the same number.
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """What a file of a run folder holds; raises ConfigError where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"'{path}' is no valid JSON ({error}): the disk damaged it, or it was edited. Put it back, or delete it "
            "and give the command that wrote it again."
        ) from None


def read_status(folder: Path) -> Status:
    """Status of a unit; `running` without a living owner is `owed`."""
    path = folder / "status.json"
    try:
        status = Status(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return Status()
    if status.state == "running" and not is_claimed(folder):
        return replace(status, state="owed", cause="interrupted", pid=0)
    return status


def status_of(folder: Path, digest: str) -> Status:
    """Status of a unit as far as this evaluation of it goes: done where it lies on disk, whatever else was tried."""
    status = read_status(folder)
    if digest in status.evaluations and rows_file(folder, digest).is_file():
        return replace(status, state="done", digest=digest, cause=status.cause if status.state == "done" else "")
    return replace(status, state="owed", cause="") if status.state == "done" else status


def warm_start_status(folder: Path) -> Status:
    """Status of a policy's evaluation before training, whose folder's name ends in its digest."""
    status = read_status(folder)
    digest = next((key for key in status.evaluations if folder.name.endswith(f"-{key[:10]}")), None)
    return status if digest is None else status_of(folder, digest)


def rows_file(folder: Path, digest: str) -> Path:
    """Where the rows of one evaluation lie."""
    return folder / f"evaluation-{digest[:10]}.parquet"


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
    if not (folder / ".lock").exists():
        return False
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def hash_of(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
