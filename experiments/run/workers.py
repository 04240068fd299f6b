"""Several workers on one grid: copies of the one runner on a run folder that all share; units are claimed by file lock.

Nothing is dealt out and no result travels back: workers take what nobody holds, and the process that started them reads
the folder to tell how far they are. A worker that dies is started again. `processes` starts them on this machine, `ray`
on a cluster.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from dllm_rl.errors import ConfigError, DllmRlError
from experiments.design.config import Preset
from experiments.design.units import GridPlan, Unit, plan_grid, versions
from experiments.run.folder import CONFIG_FILE, OUTCOMES_FILE, STATUS_FILE, RunFolder
from experiments.run.runner import Progress, begin, owed_units, refresh, run_units
from experiments.run.status import State, Status, claim, read_status, write_status

LOOK_SECONDS = 1.0
STOP_SECONDS = 15.0
MAX_DEATHS = 3


class WorkerDiedError(DllmRlError):
    """A worker ended without a word: killed, or out of memory."""


class WorkersError(DllmRlError):
    """Workers that do not come up, or a cluster that cannot be reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a worker is told about a grid.

    Attributes:
        root: The run folder, absolute.
        cwd: The driver's, from which relative paths of checkpoints are read.
        digest, versions: Of the grid as the driver resolved it; a worker that finds others would mix results.
        chosen: Names of the units to run; None is all.
        num_beside: Workers that share the worker's machine, itself among them.
    """

    preset: Preset
    root: Path
    cwd: Path
    digest: str
    versions: dict[str, str]
    chosen: frozenset[str] | None
    num_beside: int = 1


class Workers(Protocol):
    """Workers of one launch."""

    @property
    def num_running(self) -> int:
        """How many have not ended."""
        ...

    def start(self) -> None:
        """Start one more."""
        ...

    def wait(self, seconds: float) -> list[WorkerDiedError]:
        """Wait so long, or until one ends; those that died. Raises what a worker raised."""
        ...

    def stop(self) -> None:
        """Interrupt all as Ctrl-C does, and end by force what does not answer."""
        ...


def run_with(plan: GridPlan, supervised: Callable[[Launch, list[Unit]], None]) -> dict[str, Status]:
    """Have workers run what is owed; the status of every chosen unit by name, as `runner.run_units` returns it.

    Args:
        supervised: Starts workers for a launch, and returns once all have ended.
    """
    begin(plan)
    owed = owed_units(plan)
    if owed:
        # Workers pass over what failed in this launch, so what failed in an earlier one must not look like it.
        for unit in owed:
            _write_state(unit, "owed", "")
        launch = Launch(
            preset=plan.preset,
            root=plan.root.resolve(),
            cwd=Path.cwd(),
            digest=plan.config.digest,
            versions=plan.config.versions,
            chosen=plan.chosen,
        )
        supervised(launch, owed)
    return refresh(plan)


def supervise(
    workers: Workers, owed: Iterable[Unit], *, num_workers: int, progress: Progress, reads_steps: bool
) -> None:
    """Keep workers at it until each has found nothing left to do. Raises what a worker raised.

    Args:
        reads_steps: Whether the steps of a unit are told from its files; else the workers tell them.
    """
    shown = _Shown(owed, progress, reads_steps=reads_steps)
    deaths = _Deaths(shown.left, progress)
    try:
        for _ in range(num_workers):
            workers.start()
        while workers.num_running:
            for death in workers.wait(LOOK_SECONDS):
                deaths.count(death)
                workers.start()
            shown.look()
        shown.look(is_last=True)
    finally:
        workers.stop()


class _Deaths:
    """Counts deaths of workers. Each is that of one unit that was left behind; one that kills every worker fails."""

    def __init__(self, left: dict[str, Unit], progress: Progress) -> None:
        self._left = left
        self._progress = progress
        self._counts: Counter[str] = Counter()
        self._claims: set[tuple[str, int]] = set()
        self._orphans: list[Unit] = []

    def count(self, death: WorkerDiedError) -> None:
        """Tell which unit a dead worker held."""
        self._look()
        # Of several workers that died at once, each is told with one of the units: which one makes no difference.
        unit = self._orphans.pop(0) if self._orphans else None
        held = f"{unit.name} is owed again" if unit else "it had begun no unit"
        self._progress.tell(f"a worker died ({death}); {held}")
        name = unit.name if unit else ""
        self._counts[name] += 1
        if self._counts[name] < MAX_DEATHS:
            return
        if unit is None:
            raise WorkersError(
                f"workers died {MAX_DEATHS} times before they had begun a unit: {death}. Is dllm_rl installed wherever "
                "they run, with memory to spare?"
            )
        _write_state(unit, "failed", f"the process that ran it died {MAX_DEATHS} times: out of memory, or killed")

    def _look(self) -> None:
        """Take in the units that were left behind since the last death, once a claim: each writes a new status."""
        for unit in self._left.values():
            if read_status(unit.folder).cause == "interrupted":
                claimed = (unit.name, (unit.folder / STATUS_FILE).stat().st_mtime_ns)
                if claimed not in self._claims:
                    self._claims.add(claimed)
                    self._orphans.append(unit)


def _write_state(unit: Unit, state: State, cause: str) -> None:
    status = read_status(unit.folder)
    with claim(unit.folder) as is_mine:
        if is_mine:
            write_status(unit.folder, replace(status, state=state, cause=cause, pid=0))


class _Shown:
    """Tells a progress display what the files of the run say. left: units that have not ended."""

    def __init__(self, owed: Iterable[Unit], progress: Progress, *, reads_steps: bool) -> None:
        self.left = {unit.name: unit for unit in owed}
        self._progress = progress
        self._reads_steps = reads_steps
        self._started: set[str] = set()
        self._looked = 0.0

    def look(self, *, is_last: bool = False) -> None:
        """Look once, unless that was a moment ago and this is not the last look."""
        if time.monotonic() - self._looked < LOOK_SECONDS / 2 and not is_last:
            return
        for name, unit in list(self.left.items()):
            status = unit.files.status
            if status.state == "running":
                if name not in self._started:
                    self._progress.start(unit)
                self._started.add(name)
                if self._reads_steps and (rows := unit.files.metrics()):
                    self._progress.event(unit, rows[-1])
            elif status.state in ("done", "failed"):
                self._progress.finish(unit, status)
                del self.left[name]
        self._looked = time.monotonic()


def work(launch: Launch, progress: Progress) -> None:
    """Run what is owed of a grid in this process, which is a worker's."""
    from experiments.design.config import build_session
    from experiments.run.cell import LocalExecutor
    from experiments.run.placement import own_gpu
    from experiments.run.self_check import known_tasks
    from harness.browser import share_cores

    folder = RunFolder(launch.root)
    if not (launch.root / CONFIG_FILE).is_file():
        raise ConfigError(
            f"'{launch.root}' is not the run folder of the driver. All nodes must share it: "
            "give a folder on a shared disk, --out /shared/runs/NAME."
        )
    if launch.cwd.is_dir():
        os.chdir(launch.cwd)
    _refuse_other("versions", versions(), launch.versions)
    share_cores(launch.num_beside)
    with own_gpu(launch.preset, launch.root), build_session(launch.preset.environment) as session:
        session.keep_outcomes(folder.root / OUTCOMES_FILE)
        source = known_tasks(launch.preset, session, folder.root)
        plan = replace(plan_grid(launch.preset, source, folder.root), chosen=launch.chosen)
        _refuse_other("grid digest", {"digest": plan.config.digest}, {"digest": launch.digest})
        run_units(plan, LocalExecutor(session, source), progress, retries_failed=False)


def _refuse_other(what: str, here: dict[str, str], expected: dict[str, str]) -> None:
    differing = sorted(key for key in {*here, *expected} if here.get(key) != expected.get(key))
    if differing:
        found = ", ".join(f"{key} {here.get(key)} instead of {expected.get(key)}" for key in differing)
        raise ConfigError(
            f"the {what} of this node differ from the driver's ({found}), so its results would not be comparable. "
            "Install the same packages and give it the same checkpoints."
        )


def named(error: DllmRlError) -> DllmRlError:
    """The same error, with the name of this node."""
    return type(error)(f"node {socket.gethostname()}: {error}")
