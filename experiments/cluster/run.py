"""The units of a grid on a cluster: handed to free workers in order, handed out again where a worker died."""

from __future__ import annotations

import secrets
from collections import Counter, deque
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.cluster.connection import connected
from experiments.cluster.fleet import MAX_DEATHS, Fleet
from experiments.cluster.worker import TOKEN_PREFIX, Job
from experiments.failures import common_failure
from experiments.run_folder import Status, claim, read_status, write_status
from experiments.runner import Progress, begin, collect, is_done, state_of
from experiments.units import GridPlan, Unit

TICK_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where to run. address: of a running cluster (`auto`, HOST:PORT); None starts one on this machine.

    workers_per_node: units at a time on each node, each with browsers of its own.
    """

    address: str | None = None
    workers_per_node: int = 1


def run_units_on_ray(plan: GridPlan, cluster: Cluster, progress: Progress) -> dict[str, Status]:
    """Run what is owed on a Ray cluster and return the status of every chosen unit by name, as `runner.run_units` does.

    Results are those of a local run. A unit whose worker dies is owed again; after MAX_DEATHS deaths it counts as
    failed. Ctrl-C leaves what runs owed, ends every worker, and goes through.
    """
    root = plan.root.resolve()
    begin(plan)
    dispatch = _Dispatch(plan, progress)
    if not dispatch.is_owed:
        return dispatch.statuses
    token = TOKEN_PREFIX + secrets.token_hex(8)
    (root / token).touch()
    job = Job(
        preset=plan.preset,
        root=root,
        cwd=Path.cwd(),
        token=token,
        digest=plan.config["digest"],
        versions=plan.config["versions"],
    )
    try:
        with connected(cluster.address) as ray:
            dispatch.run(Fleet(ray, job, workers_per_node=cluster.workers_per_node))
    finally:
        (root / token).unlink(missing_ok=True)
    collect(plan)
    return dispatch.statuses


class _Dispatch:
    """Which units wait, which run, and what became of the others (statuses, by name)."""

    def __init__(self, plan: GridPlan, progress: Progress) -> None:
        self._progress = progress
        # Of the whole grid, as in `runner.run_units`: few failures among few chosen units stop nothing.
        self._num_units = len(plan.units)
        self._waiting: deque[Unit] = deque()
        self._running: set[str] = set()
        self._deaths: Counter[str] = Counter()
        self.statuses: dict[str, Status] = {}
        self._units = {unit.name: unit for unit in plan.units if plan.is_chosen(unit)}
        for unit in self._units.values():
            if is_done(unit):
                self._end(unit, state_of(unit))
            else:
                self._waiting.append(unit)

    @property
    def is_owed(self) -> bool:
        """Whether any unit still has to run."""
        return bool(self._waiting)

    def run(self, fleet: Fleet) -> None:
        """Until nothing waits or runs; units that another process held are looked at once more at the end."""
        try:
            self._drain(fleet)
            if not self._is_given_up():
                held = [name for name, status in self.statuses.items() if status.state == "running"]
                self._waiting.extend(self._units[name] for name in held)
                self._drain(fleet)
        finally:
            fleet.stop()

    def _drain(self, fleet: Fleet) -> None:
        while self._waiting or self._running:
            for seat in fleet.idle()[: len(self._waiting)]:
                unit = self._waiting.popleft()
                self._running.add(unit.name)
                self._progress.start(unit)
                fleet.start(seat, unit.name)
            for name, status in fleet.wait(TICK_SECONDS):
                self._running.discard(name)
                self._ended(self._units[name], status)
            for name, event in fleet.events():
                self._progress.event(self._units[name], event)

    def _ended(self, unit: Unit, status: Status | None) -> None:
        if status is not None:
            if status != self.statuses.get(unit.name):
                self._end(unit, status)
        elif is_done(unit):
            # It died after its last write.
            self._end(unit, state_of(unit))
        else:
            self._mourn(unit)

    def _mourn(self, unit: Unit) -> None:
        self._deaths[unit.name] += 1
        if self._deaths[unit.name] < MAX_DEATHS:
            self._waiting.appendleft(unit)
            return
        cause = f"the process that ran it died {MAX_DEATHS} times: out of memory, or killed"
        with claim(unit.folder) as is_mine:
            status = replace(read_status(unit.folder), state="failed", cause=cause, digest="", pid=0)
            if is_mine:
                write_status(unit.folder, status)
        self._end(unit, status)

    def _end(self, unit: Unit, status: Status) -> None:
        self.statuses[unit.name] = status
        self._progress.finish(unit, status)
        if self._is_given_up():
            for left in self._waiting:
                self.statuses.setdefault(left.name, state_of(left))
            self._waiting.clear()

    def _is_given_up(self) -> bool:
        return common_failure(self.statuses.values(), self._num_units) is not None
