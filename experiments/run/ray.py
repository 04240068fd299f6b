"""A grid on a Ray cluster: workers on its nodes, on a run folder that all of them share (`experiments.run.workers`)."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from dllm_rl.errors import ConfigError, DllmRlError
from experiments.design.units import GridPlan, Unit
from experiments.run.runner import Progress, Silent
from experiments.run.status import Status
from experiments.run.workers import (
    STOP_SECONDS,
    Launch,
    WorkerDiedError,
    WorkersError,
    named,
    run_with,
    supervise,
    work,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where to run.

    Attributes:
        address: Of a running cluster (`auto`, HOST:PORT); None starts one on this machine.
        workers_per_node: Units at a time on each node, each with browsers of its own.
    """

    address: str | None = None
    workers_per_node: int = 1


def run_units_on_ray(plan: GridPlan, cluster: Cluster, progress: Progress) -> dict[str, Status]:
    """Run what is owed on a Ray cluster and return the status of every chosen unit by name, as `runner.run_units` does.

    Results are those of a local run. A unit whose worker dies is run by another; after MAX_DEATHS deaths it counts as
    failed. Ctrl-C leaves what runs owed, ends every worker, and goes through.
    """

    def supervised(launch: Launch, owed: list[Unit]) -> None:
        with connected(cluster.address) as ray:
            nodes = sum(node["Alive"] for node in ray.nodes())
            workers = RayWorkers(ray, replace(launch, num_beside=cluster.workers_per_node))
            num_workers = cluster.workers_per_node * nodes
            supervise(workers, owed, num_workers=num_workers, progress=progress, reads_steps=True)

    return run_with(plan, supervised)


class RayWorkers:
    """Workers as tasks of Ray."""

    def __init__(self, ray: Any, launch: Launch) -> None:
        self._ray, self._launch = ray, launch
        self._work = ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")(work_on_node)
        self._tasks: list[Any] = []

    @property
    def num_running(self) -> int:
        """How many have not ended."""
        return len(self._tasks)

    def start(self) -> None:
        """Start one more."""
        self._tasks.append(self._work.remote(self._launch))

    def wait(self, seconds: float) -> list[WorkerDiedError]:
        """Wait so long, or until one ends; those that died. Raises what a worker raised."""
        ready, self._tasks = self._ray.wait(self._tasks, num_returns=1, timeout=seconds)
        died: list[WorkerDiedError] = []
        for task in ready:
            try:
                self._ray.get(task)
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except self._ray.exceptions.RayError as error:
                died.append(WorkerDiedError(str(error)))
        return died

    def stop(self) -> None:
        """Interrupt the workers as Ctrl-C does, and end by force what does not answer."""
        for is_forced in (False, True):
            for task in self._tasks:
                with contextlib.suppress(Exception):
                    self._ray.cancel(task, force=is_forced)
            if self._tasks:
                _, self._tasks = self._ray.wait(self._tasks, num_returns=len(self._tasks), timeout=STOP_SECONDS)


def work_on_node(launch: Launch) -> None:
    """Run what is owed of a grid in this process; Ray calls it on a node."""
    try:
        work(launch, Silent())
    except DllmRlError as error:
        raise named(error) from None


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
    # Workers ask Ray for no GPU and share out those that they see; Ray before April 2026 hid them from such tasks.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
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
        raise WorkersError(
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
