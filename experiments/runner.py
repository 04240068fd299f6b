"""Runs the units of a grid one after another on this machine; whatever is interrupted is continued by the same command.

A unit is done once its evaluation lies on disk and its status carries the digest. Until then it is owed: the trainer
resumes from its checkpoint, the evaluation starts again. A unit that fails is recorded with its cause, the others go
on, and the next run tries it again.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from typing import Any, Protocol

from dllm_rl.errors import BrowserMissingError
from experiments.collapse.online import read_alarms
from experiments.results import merge, write_rows
from experiments.run_folder import Status, claim, read_status, write_json, write_status
from experiments.units import GridPlan, Unit

OnEvent = Callable[[dict[str, Any]], None]


class Executor(Protocol):
    """Does the work of a unit. The real one is `experiments.cell.LocalExecutor`."""

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


def is_done(unit: Unit) -> bool:
    """Whether this unit's evaluation, of just these settings and tasks, lies on disk."""
    status = read_status(unit.folder)
    return status.state == "done" and status.digest == unit.digest and (unit.folder / "evaluation.parquet").is_file()


def owed_units(plan: GridPlan) -> list[Unit]:
    """Units that still have to run, in order."""
    return [unit for unit in plan.units if not is_done(unit)]


def run_units(plan: GridPlan, executor: Executor, progress: Progress) -> dict[str, Status]:
    """Run what is owed and return the status of every unit by name. Ctrl-C leaves the unit owed and goes through."""
    write_json(plan.root / "config.json", plan.config)
    statuses: dict[str, Status] = {}
    for unit in plan.units:
        with claim(unit.folder) as is_mine:
            if not is_mine:
                status = Status(state="running", cause="another process works on it")
            elif is_done(unit):
                status = read_status(unit.folder)
            else:
                status = _run(unit, executor, progress)
                collect(plan)
        statuses[unit.name] = status
        progress.finish(unit, status)
    collect(plan)
    return statuses


def refresh(plan: GridPlan) -> dict[str, Status]:
    """Bring config.json and results.parquet up to date without running anything; the status of every unit by name."""
    write_json(plan.root / "config.json", plan.config)
    collect(plan)
    return {unit.name: read_status(unit.folder) for unit in plan.units}


def collect(plan: GridPlan) -> int:
    """Write results.parquet from all units that are done; returns the number of rows."""
    parts = [unit.folder / "evaluation.parquet" for unit in plan.units if is_done(unit)]
    return merge(plan.root / "results.parquet", parts)


def _run(unit: Unit, executor: Executor, progress: Progress) -> Status:
    before = read_status(unit.folder).seconds
    started = time.monotonic()

    def spent() -> float:
        return round(before + time.monotonic() - started, 3)

    for torn in unit.folder.glob(".*.tmp"):
        torn.unlink()
    write_json(unit.folder / "cell.json", unit.settings)
    write_status(unit.folder, Status(state="running", seconds=before, pid=os.getpid()))
    progress.start(unit)
    work = executor.warm_start if unit.is_warm_start else executor.cell
    try:
        rows = work(unit, lambda event: progress.event(unit, event))
        write_rows(unit.folder / "evaluation.parquet", rows, **unit.labels)
    except KeyboardInterrupt:
        write_status(unit.folder, Status(state="owed", cause="interrupted", seconds=spent()))
        raise
    except BrowserMissingError as error:
        write_status(unit.folder, Status(state="owed", cause=str(error), seconds=spent()))
        raise
    except Exception as error:
        (unit.folder / "failure.txt").write_text(traceback.format_exc())
        status = Status(state="failed", cause=f"{type(error).__name__}: {error}", seconds=spent())
    else:
        (unit.folder / "failure.txt").unlink(missing_ok=True)
        status = _done(unit, spent())
    write_status(unit.folder, status)
    return status


def _done(unit: Unit, seconds: float) -> Status:
    """Status of a unit whose evaluation lies on disk, with the alarm that ended its training, if one did."""
    alarms = read_alarms(unit.folder)
    because, stopped_at = alarms["because"], alarms["stopped_at"]
    return Status(state="done", seconds=seconds, digest=unit.digest, cause=because, stopped_at=stopped_at)
