"""Runs the units of a grid one after another on this machine; whatever is interrupted is continued by the same command.

A unit is done once its evaluation lies on disk and its status carries that one's digest. Until then it is owed: the
trainer resumes from its checkpoint, the evaluation starts again. A unit that fails is recorded with its cause, the
others go on, and the next run tries it again.
"""

from __future__ import annotations

import errno
import os
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol

from dllm_rl.errors import BrowserMissingError, DllmRlError
from dllm_rl.files import sha256, write_json
from experiments.design.units import GridPlan, Unit
from experiments.run.folder import RECORD_FILE
from experiments.run.results import refuse_lost, write_rows
from experiments.run.status import State, Status, claim, read_status, write_status

# Above this share of the units, failures for one reason are not accidents of single cells.
MAX_SHARE = 0.3
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFullError(DllmRlError):
    """No room is left to write to."""


class ProcessesBrokenError(DllmRlError):
    """One of the processes that train a unit together failed, and with it all of them."""


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what it was raised from, says that a disk, a quota or a size limit is full."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in _FULL:
            return True
        found = found.__cause__ or found.__context__
    return "No space left on device" in str(error)


def reason_of(cause: str) -> str:
    """First line of a cause, without what differs from cell to cell: numbers, digests and paths."""
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


OnEvent = Callable[[dict[str, Any]], None]


class Executor(Protocol):
    """Does the work of a unit. The real one is `experiments.run.cell.LocalExecutor`."""

    def warm_start(self, unit: Unit, on_event: OnEvent) -> list[dict[str, Any]]:
        """Evaluate the policy as it was before training; rows of the results table without labels."""
        ...

    def cell(self, unit: Unit, on_event: OnEvent) -> list[dict[str, Any]]:
        """Train (or resume) in the unit's folder, then evaluate."""
        ...


class Progress(Protocol):
    """Is told what happens; shows it or not."""

    def start(self, unit: Unit) -> None:
        """A unit begins."""
        ...

    def event(self, unit: Unit, event: dict[str, Any]) -> None:
        """A training step or an evaluated rollout of this unit."""
        ...

    def finish(self, unit: Unit, status: Status) -> None:
        """A unit ended, or was found ended."""
        ...

    def tell(self, text: str) -> None:
        """Something happened beside the units."""
        ...


def owed_units(plan: GridPlan) -> list[Unit]:
    """Units that this command still has to run, in order."""
    return [unit for unit in plan.units if plan.is_chosen(unit) and not unit.files.is_done]


class Silent:
    """Progress that shows nothing."""

    def start(self, unit: Unit) -> None:
        """A unit begins."""

    def event(self, unit: Unit, event: dict[str, Any]) -> None:
        """A training step or an evaluated rollout of this unit."""

    def finish(self, unit: Unit, status: Status) -> None:
        """A unit ended, or was found ended."""

    def tell(self, text: str) -> None:
        """Something happened beside the units."""


def run_units(
    plan: GridPlan, executor: Executor, progress: Progress, *, retries_failed: bool = True
) -> dict[str, Status]:
    """Run what is owed and return the status of every chosen unit by name. Ctrl-C leaves it owed and goes through.

    Other processes may run the same grid: a unit is run by whoever claims it, and those that a process left behind are
    looked at once more. Units that failed before come last, so that one which ends the processes that train it together
    holds up no other. Where too many units fail for one reason, the rest is left owed.

    Args:
        retries_failed: Whether a unit that has failed before is run again; else its status stands.
    """
    begin(plan)
    statuses: dict[str, Status] = {}
    chosen = [unit for unit in plan.units if plan.is_chosen(unit)]
    left = sorted(chosen, key=lambda unit: unit.files.status.state == "failed")
    for is_second_look in (False, True):
        for unit in left:
            if common_failure(statuses.values(), len(plan.units)) is not None:
                statuses.setdefault(unit.name, unit.files.status)
                continue
            status = unit.files.status
            if status.state != "failed" or retries_failed:
                status = _run_claimed(plan, unit, executor, progress)
            if is_second_look and status == statuses[unit.name]:
                continue
            statuses[unit.name] = status
            progress.finish(unit, status)
        left = [unit for unit in chosen if statuses[unit.name].state == "running"]
    collect(plan)
    return statuses


def _run_claimed(plan: GridPlan, unit: Unit, executor: Executor, progress: Progress) -> Status:
    """Run one unit unless it is done or another process holds it, bring results.parquet up to date; its status."""
    with claim(unit.folder) as is_mine:
        if not is_mine:
            return Status(state="running", cause="another process works on it")
        if unit.files.is_done:
            return unit.files.status
        status = _run(unit, executor, progress)
    collect(plan)
    return status


def begin(plan: GridPlan) -> None:
    """Bring config.json and results.parquet up to date: rows of other settings do not stay under these."""
    plan.folder.write_config()
    collect(plan)


def refresh(plan: GridPlan) -> dict[str, Status]:
    """Bring what is shared up to date without running anything; the status of every chosen unit by name."""
    begin(plan)
    return {unit.name: unit.files.status for unit in plan.units if plan.is_chosen(unit)}


def collect(plan: GridPlan) -> int:
    """Write results.parquet from all units that are done; returns the number of rows.

    Raises DamagedResultError where a finished result is not what was written.
    """
    return plan.folder.gather()


def _of_training(unit: Unit) -> dict[str, Any]:
    """What cell.json says of a training that goes on, or is over."""
    record = unit.files.record()
    return {"trained_by": record.trained_by} if record is not None and record.trained_by else {}


def _run(unit: Unit, executor: Executor, progress: Progress) -> Status:
    before = read_status(unit.folder)
    started = time.monotonic()

    def now(state: State, cause: str = "", **more: Any) -> Status:
        seconds = round(before.seconds + time.monotonic() - started, 3)
        kept = {"evaluations": before.evaluations, "taken_from": before.taken_from}
        return Status(state=state, cause=cause, seconds=seconds, **{**kept, **more})

    for torn in unit.folder.glob(".*.tmp"):
        torn.unlink()
    write_json(unit.folder / RECORD_FILE, unit.settings | _of_training(unit))
    write_status(unit.folder, replace(now("running", pid=os.getpid()), seconds=before.seconds))
    progress.start(unit)
    work = executor.warm_start if unit.is_warm_start else executor.cell
    try:
        rows = work(unit, lambda event: progress.event(unit, event))
        refuse_lost(rows)
        write_rows(unit.files.rows_file, rows, **unit.labels)
        alarms = unit.files.alarms()
    except KeyboardInterrupt:
        write_status(unit.folder, now("owed", "interrupted"))
        raise
    except BrowserMissingError as error:
        write_status(unit.folder, now("owed", str(error)))
        raise
    except Exception as error:
        if is_disk_full(error):
            raise DiskFullError(
                f"no room is left to write '{unit.folder}' ({error}). Free some; the same command continues."
            ) from error
        (unit.folder / "failure.txt").write_text(traceback.format_exc())
        cause = error.__cause__ if isinstance(error, ProcessesBrokenError) else error
        status = now("failed", f"{type(cause).__name__}: {cause}")
        if isinstance(error, ProcessesBrokenError):
            write_status(unit.folder, status)
            raise
    else:
        (unit.folder / "failure.txt").unlink(missing_ok=True)
        # Includes the alarm that ended its training, if any.
        evaluations = {**before.evaluations, unit.digest: sha256(unit.files.rows_file)}
        status = now("done", alarms.because, digest=unit.digest, stopped_at=alarms.stopped_at, evaluations=evaluations)
    write_status(unit.folder, status)
    return status
