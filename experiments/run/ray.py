"""A grid on a Ray cluster: copies of the one runner on a shared run folder, where units are claimed by file lock.

Nothing is dealt out and nothing travels back: workers take what nobody holds, and this process reads the folder to tell
how far they are. A worker that dies is started again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dllm_rl.errors import ConfigError, DllmRlError
from experiments.design.config import Preset
from experiments.design.units import GridPlan, Unit, plan_grid, versions
from experiments.run.folder import CONFIG_FILE, OUTCOMES_FILE, RunFolder
from experiments.run.runner import Progress, Silent, begin, owed_units, refresh, run_units
from experiments.run.status import Status, claim, read_status, write_status

LOOK_SECONDS = 1.0
STOP_SECONDS = 15.0
MAX_DEATHS = 3


class ClusterError(DllmRlError):
    """A cluster that cannot be reached, or whose workers do not come up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where to run. address: of a running cluster (`auto`, HOST:PORT); None starts one on this machine.

    workers_per_node: units at a time on each node, each with browsers of its own.
    """

    address: str | None = None
    workers_per_node: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a worker is told about a grid.

    root: the run folder, absolute. cwd: the driver's, from which relative paths of checkpoints are read.
    digest, versions: of the grid as the driver resolved it; a node that finds others would mix results.
    chosen: names of the units to run; None is all.
    """

    preset: Preset
    root: Path
    cwd: Path
    digest: str
    versions: dict[str, str]
    chosen: frozenset[str] | None


def run_units_on_ray(plan: GridPlan, cluster: Cluster, progress: Progress) -> dict[str, Status]:
    """Run what is owed on a Ray cluster and return the status of every chosen unit by name, as `runner.run_units` does.

    Results are those of a local run. A unit whose worker dies is run by another; after MAX_DEATHS deaths it counts as
    failed. Ctrl-C leaves what runs owed, ends every worker, and goes through.
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
        with connected(cluster.address) as ray:
            nodes = sum(node["Alive"] for node in ray.nodes())
            supervise(ray, launch, owed, num_workers=cluster.workers_per_node * nodes, progress=progress)
    return refresh(plan)


def supervise(ray: Any, launch: Launch, owed: Iterable[Unit], *, num_workers: int, progress: Progress) -> None:
    """Keep workers at it until each has found nothing left to do. Raises what a worker raised."""
    work_there = ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")(work)
    tasks = [work_there.remote(launch) for _ in range(num_workers)]
    shown, deaths = _Shown(owed, progress), Counter[str]()
    try:
        while tasks:
            ready, tasks = ray.wait(tasks, num_returns=1, timeout=LOOK_SECONDS)
            for task in ready:
                try:
                    ray.get(task)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayError as error:
                    _count_death(shown.left, deaths, error)
                    tasks.append(work_there.remote(launch))
            shown.look()
    finally:
        _stop(ray, tasks)


def _count_death(left: dict[str, Unit], deaths: Counter[str], error: Exception) -> None:
    """Count which unit a dead worker held. One that kills every worker fails."""
    orphans = [unit for unit in left.values() if read_status(unit.folder).cause == "interrupted"]
    for name in [unit.name for unit in orphans] or [""]:
        deaths[name] += 1
    if deaths[""] >= MAX_DEATHS:
        raise ClusterError(
            f"workers died {MAX_DEATHS} times before they had begun a unit: {error}. Is dllm_rl installed on every "
            "node, with memory to spare?"
        )
    for unit in orphans:
        if deaths[unit.name] >= MAX_DEATHS:
            _write_state(unit, "failed", f"the process that ran it died {MAX_DEATHS} times: out of memory, or killed")


def _write_state(unit: Unit, state: Any, cause: str) -> None:
    status = read_status(unit.folder)
    with claim(unit.folder) as is_mine:
        if is_mine:
            write_status(unit.folder, replace(status, state=state, cause=cause, pid=0))


class _Shown:
    """Tells a progress display what the files of the run say. left: units that have not ended."""

    def __init__(self, owed: Iterable[Unit], progress: Progress) -> None:
        self.left = {unit.name: unit for unit in owed}
        self._progress = progress
        self._started: set[str] = set()

    def look(self) -> None:
        """Look once."""
        for name, unit in list(self.left.items()):
            status = unit.files.status
            if status.state == "running":
                if name not in self._started:
                    self._progress.start(unit)
                self._started.add(name)
                if rows := unit.files.metrics():
                    self._progress.event(unit, rows[-1])
            elif status.state in ("done", "failed"):
                self._progress.finish(unit, status)
                del self.left[name]


def _stop(ray: Any, tasks: list[Any]) -> None:
    """Interrupt the workers as Ctrl-C does, and end by force what does not answer."""
    for is_forced in (False, True):
        for task in tasks:
            with contextlib.suppress(Exception):
                ray.cancel(task, force=is_forced)
        if tasks:
            _, tasks = ray.wait(tasks, num_returns=len(tasks), timeout=STOP_SECONDS)


def work(launch: Launch) -> None:
    """Run what is owed of a grid in this process; Ray calls it on a node."""
    try:
        _work(launch)
    except DllmRlError as error:
        raise type(error)(f"node {socket.gethostname()}: {error}") from None


def _work(launch: Launch) -> None:
    from experiments.design.config import build_session
    from experiments.run.cell import LocalExecutor
    from experiments.run.self_check import known_tasks

    folder = RunFolder(launch.root)
    if not (launch.root / CONFIG_FILE).is_file():
        raise ConfigError(
            f"'{launch.root}' is not the run folder of the driver. All nodes must share it: "
            "give a folder on a shared disk, --out /shared/runs/NAME."
        )
    if launch.cwd.is_dir():
        os.chdir(launch.cwd)
    _refuse_other("versions", versions(), launch.versions)
    with build_session(launch.preset.environment) as session:
        session.keep_outcomes(folder.root / OUTCOMES_FILE)
        source = known_tasks(launch.preset, session, folder.root)
        plan = replace(plan_grid(launch.preset, source, folder.root), chosen=launch.chosen)
        _refuse_other("grid digest", {"digest": plan.config.digest}, {"digest": launch.digest})
        run_units(plan, LocalExecutor(session, source), Silent(), retries_failed=False)


def _refuse_other(what: str, here: dict[str, str], expected: dict[str, str]) -> None:
    differing = sorted(key for key in {*here, *expected} if here.get(key) != expected.get(key))
    if differing:
        found = ", ".join(f"{key} {here.get(key)} instead of {expected.get(key)}" for key in differing)
        raise ConfigError(
            f"the {what} of this node differ from the driver's ({found}), so its results would not be comparable. "
            "Install the same packages and give it the same checkpoints."
        )


def require_ray() -> None:
    """Raise ConfigError where the extra is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("--executor ray needs the package ray, which is not installed: pip install 'dllm-rl[ray]'")


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Connect to the cluster at an address (`auto`, HOST:PORT), or start one here that ends with the connection.

    Yields the module ray. Nothing is reported to anyone, and a cluster started here listens on loopback only.
    """
    require_ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        # Ray's word for: this machine alone. It keeps all of its servers on 127.0.0.1; read when ray is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    import ray

    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    here: dict[str, Any] = {"address": "local", "include_dashboard": False}
    try:
        ray.init(**(here if address is None else {"address": address}), **quiet)
    # Ray raises a bare Exception where one of its own processes does not come up in time.
    except Exception as error:
        place = "this machine" if address is None else f"'{address}'"
        raise ClusterError(
            f"no Ray cluster could be reached on {place}: {str(error).strip().splitlines()[0]}. "
            "Start one with `ray start --head` and give --address HOST:PORT, or give none and one starts here; on a "
            "machine that is busy with other work, try again."
        ) from None
    finally:
        # Ray takes over SIGTERM when it is imported; ours ends a grid as Ctrl-C does.
        if is_main:
            signal.signal(signal.SIGTERM, handler)
    try:
        yield ray
    finally:
        ray.shutdown()
