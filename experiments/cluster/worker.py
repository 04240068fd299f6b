"""What runs on a node of a cluster: units of a grid, one at a time, with a browser fleet of this process's own.

A plain class that Ray makes an actor of. Units are claimed, run and written down as the local runner does it, in the
run folder that all nodes share; nothing but their status travels back.
"""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm_rl.errors import ConfigError, DllmRlError
from experiments.config import Preset
from experiments.run_folder import Status, read_status
from experiments.runner import Executor, run_claimed
from experiments.units import GridPlan, Unit, versions

TOKEN_PREFIX = ".cluster-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a node is told about a grid.

    root: the run folder, absolute. cwd: the driver's, from which relative paths of checkpoints are read.
    token: name of a file that the driver made there, by which a node knows that it sees the same folder.
    digest, versions: of the grid as the driver resolved it; a node that finds others would mix results.
    """

    preset: Preset
    root: Path
    cwd: Path
    token: str
    digest: str
    versions: dict[str, str]


class Worker:
    """Runs units of one grid. `event` and `stop` are called while `run` works, from other threads."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._event: dict[str, Any] | None = None
        self._is_stopped = threading.Event()

    def open(self) -> str:
        """Resolve the grid here and compare it with the driver's; returns this machine's name. Starts no browser."""
        try:
            self._open()
        except DllmRlError as error:
            raise _said_by_this_node(error) from None
        return socket.gethostname()

    def run(self, name: str) -> Status:
        """Claim the unit of this name, train and evaluate it, and return its status; an interrupted one is owed."""
        self._event = None
        unit = self._units[name]
        try:
            return run_claimed(self._plan, unit, self._executor, _Events(self))
        except KeyboardInterrupt:
            return read_status(unit.folder)
        except DllmRlError as error:
            raise _said_by_this_node(error) from None

    def event(self) -> dict[str, Any] | None:
        """The newest event of the unit that runs, for the driver's progress display."""
        return self._event

    def stop(self) -> None:
        """Interrupt the unit that runs at its next event, so that its status says so."""
        self._is_stopped.set()

    def close(self) -> None:
        """End the browsers of this process."""
        self._session.close()

    def _open(self) -> None:
        job = self._job
        if not (job.root / job.token).is_file():
            raise ConfigError(
                f"'{job.root}' is not the run folder of the driver. All nodes must share it: "
                "give a folder on a shared disk, --out /shared/runs/NAME."
            )
        if job.cwd.is_dir():
            os.chdir(job.cwd)
        _refuse_other("versions", versions(), job.versions)
        from experiments.cell import LocalExecutor
        from experiments.components import build_session
        from experiments.self_check import known_tasks
        from experiments.units import plan_grid

        self._session = build_session(job.preset.environment)
        tasks = known_tasks(job.preset, self._session, job.root)
        self._plan: GridPlan = plan_grid(job.preset, tasks, job.root)
        _refuse_other("grid digest", {"digest": self._plan.config["digest"]}, {"digest": job.digest})
        self._units = {unit.name: unit for unit in self._plan.units}
        self._executor: Executor = LocalExecutor(self._session, tasks)

    def _observe(self, event: dict[str, Any]) -> None:
        self._event = event
        if self._is_stopped.is_set():
            raise KeyboardInterrupt


class _Events:
    """Progress of a worker: the newest event is kept for the driver, which shows it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def start(self, unit: Unit) -> None:
        """A unit begins."""

    def event(self, unit: Unit, event: dict[str, Any]) -> None:
        """A training step or a part of the evaluation."""
        self._worker._observe(event)

    def finish(self, unit: Unit, status: Status) -> None:
        """A unit ended."""


def _said_by_this_node(error: DllmRlError) -> DllmRlError:
    return type(error)(f"node {socket.gethostname()}: {error}")


def _refuse_other(what: str, here: dict[str, str], expected: dict[str, str]) -> None:
    differing = sorted(key for key in {*here, *expected} if here.get(key) != expected.get(key))
    if differing:
        found = ", ".join(f"{key} {here.get(key)} instead of {expected.get(key)}" for key in differing)
        raise ConfigError(
            f"the {what} of this node differ from the driver's ({found}), so its results would not be comparable. "
            "Install the same packages and give it the same checkpoints."
        )
