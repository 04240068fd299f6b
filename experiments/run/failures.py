"""Failures of units: which end a launch at once, and when many that are alike say that the rest would fail too."""

from __future__ import annotations

import errno
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dllm_rl.errors import DllmRlError
from experiments.run.results import is_lost
from experiments.run.status import Status

# Over this share of the units, failures for one reason are no accident of single cells.
MAX_SHARE = 0.3
# Over this share of lost rollouts an evaluation says too little about its policy.
MAX_LOST_SHARE = 0.05
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFullError(DllmRlError):
    """No room is left to write to."""


class RolloutsLostError(DllmRlError):
    """The environment lost too many rollouts of an evaluation."""


class ProcessesBrokenError(DllmRlError):
    """One of the processes that train a unit together failed, and with it all of them."""


def refuse_lost(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise where the environment lost too large a share of an evaluation, which then is owed again."""
    num_lost = sum(is_lost(row["fault"]) for row in rows)
    if num_lost > MAX_LOST_SHARE * len(rows):
        raise RolloutsLostError(
            f"{num_lost} of {len(rows)} evaluated rollouts were lost to the environment (limit {MAX_LOST_SHARE:.0%}). "
            "What was trained is kept: the same command evaluates again. `dllm-rl doctor` looks for the cause."
        )


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what it was raised from, says that a disk, a quota or a size limit is full."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in _FULL:
            return True
        found = found.__cause__ or found.__context__
    return "No space left on device" in str(error)


def reason_of(cause: str) -> str:
    """A cause without what differs from cell to cell: its first line, numbers, digests and paths left out."""
    line = cause.splitlines()[0] if cause else ""
    line = re.sub(r"'[^']*/[^']*'|\S*/\S+", "PATH", line)
    return re.sub(r"\b[0-9a-f]{8,}\b|\d+(\.\d+)?", "N", line)


def common_failure(statuses: Iterable[Status], num_units: int) -> tuple[str, int] | None:
    """A cause that more than MAX_SHARE of all units, and at least two, failed for, and how many did; else None."""
    causes = [status.cause for status in statuses if status.state == "failed"]
    counts = Counter(reason_of(cause) for cause in causes)
    if not counts:
        return None
    reason, count = counts.most_common(1)[0]
    if count < 2 or count <= MAX_SHARE * num_units:
        return None
    return next(cause for cause in causes if reason_of(cause) == reason), count
