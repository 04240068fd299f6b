"""Workers as processes of this machine: one for each core, each with one thread and with browsers of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import replace
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from typing import Any

from dllm_rl.errors import ConfigError
from experiments.design.config import Component, Preset, build_environment, loaded_levels
from experiments.design.units import GridPlan, Unit
from experiments.run.memory import available_gigabytes
from experiments.run.runner import Progress, Silent
from experiments.run.status import Status
from experiments.run.workers import STOP_SECONDS, Launch, WorkerDiedError, run_with, supervise, work

# A worker loads PyTorch and starts a browser: with less to do than this it would not pay.
SECONDS_A_WORKER = 60.0
# Resident memory of a worker with its browser and a built-in policy, at most.
GIGABYTES_A_WORKER = 1.5
# Exit code of a worker that was told to end.
_INTERRUPTED = 130
_CONTEXT = multiprocessing.get_context("spawn")


def number_of_workers(preset: Preset, asked: int | None, owed: Iterable[Unit]) -> int:
    """How many processes run these units: as many as asked for, or one for each core that has work and memory.

    Policies on an accelerator: one by default. Several share the GPUs out (`experiments.run.placement`), of which each
    holds as many copies as processes take it.

    Raises ConfigError where several are asked for, and the preset leaves the number of threads to each process, or the
    environment may be open in one alone.
    """
    units = list(owed)
    if build_environment(preset.environment).exclusive_because is not None:
        if asked is not None and asked > 1:
            refuse_several(preset.environment, f"--workers {asked}")
        return 1
    if preset.threads is None:
        if asked is not None and asked > 1:
            raise ConfigError(
                f"--workers {asked} was given, and each would take all cores, since the preset has no number of "
                "threads. Add threads=1."
            )
        return 1
    if asked is None and any(level.device != "cpu" for level in loaded_levels(preset.policies).values()):
        asked = 1
    if asked is None:
        from harness.browser import usable_cores

        enough = int(sum(unit.cost.seconds for unit in units) / SECONDS_A_WORKER)
        asked = min(enough, usable_cores() // preset.threads, int(available_gigabytes() / GIGABYTES_A_WORKER))
    return max(1, min(asked, len(units)))


def refuse_several(environment: Component, given: str) -> None:
    """Raise ConfigError for what starts several processes, where only one may have the environment open."""
    because = build_environment(environment).exclusive_because
    if because is not None:
        raise ConfigError(
            f"{given} was given, and only one process at a time may have the environment '{environment.name}' open: "
            f"{because}. Run it in one process, without {given}."
        )


def run_units_in_processes(plan: GridPlan, num_workers: int, progress: Progress) -> dict[str, Status]:
    """Run what is owed in several processes; the status of every chosen unit by name, as `runner.run_units` returns it.

    Results are those of one process. Ctrl-C leaves what runs owed, ends every worker, and goes through.
    """

    def supervised(launch: Launch, owed: list[Unit]) -> None:
        units = {unit.name: unit for unit in owed}
        workers = LocalWorkers(
            replace(launch, num_beside=num_workers), lambda name, event: progress.event(units[name], event)
        )
        supervise(workers, owed, num_workers=num_workers, progress=progress, reads_steps=False)

    return run_with(plan, supervised)


class LocalWorkers:
    """Worker processes.

    Args:
        on_event: Gets the name of a unit and a step, or a part of its evaluation.
    """

    def __init__(self, launch: Launch, on_event: Callable[[str, dict[str, Any]], None]) -> None:
        self._launch = launch
        self._on_event = on_event
        self._running: dict[Any, SpawnProcess] = {}

    @property
    def num_running(self) -> int:
        """How many have not ended."""
        return len(self._running)

    def start(self) -> None:
        """Start one more."""
        here, there = _CONTEXT.Pipe(duplex=False)
        process = _CONTEXT.Process(target=_serve, args=(self._launch, there), name="worker")
        process.start()
        there.close()
        self._running[here] = process

    def wait(self, seconds: float) -> list[WorkerDiedError]:
        """Pass on what workers tell, for so long or until one ends; those that died. Raises what a worker raised."""
        end = time.monotonic() + seconds
        while self._running and (left := end - time.monotonic()) > 0:
            for told in connection.wait(list(self._running), timeout=left):
                try:
                    message: Any = told.recv()  # type: ignore[union-attr]
                except (EOFError, OSError):
                    return self._ended(told)
                if isinstance(message, BaseException):
                    raise message
                self._on_event(*message)
        return []

    def _ended(self, told: Any) -> list[WorkerDiedError]:
        process = self._running.pop(told)
        told.close()
        process.join()
        code = process.exitcode or 0
        if code == 0:
            return []
        if code == _INTERRUPTED:
            # By someone else: `stop` waits for nothing that it ended.
            return [WorkerDiedError("SIGTERM")]
        return [WorkerDiedError(signal.Signals(-code).name if code < 0 else f"exit code {code}")]

    def stop(self) -> None:
        """Interrupt all, and end by force what does not answer."""
        for process in self._running.values():
            process.terminate()
        end = time.monotonic() + STOP_SECONDS
        for told, process in self._running.items():
            process.join(max(0.0, end - time.monotonic()))
            process.kill()
            process.join()
            told.close()
        self._running.clear()


class _Relay(Silent):
    """Progress of a worker: what happens in its units is shown where all workers are."""

    def __init__(self, told: Any) -> None:
        self._told = told

    def event(self, unit: Unit, event: dict[str, Any]) -> None:
        """A training step or a part of an evaluation."""
        # Nobody listens once the parent has ended. The unit is left owed by the signal that follows.
        with contextlib.suppress(OSError):
            self._told.send((unit.name, event))


def _serve(launch: Launch, told: Any) -> None:
    """The life of a worker. Ctrl-C at the terminal is its parent's, which then tells it to end by SIGTERM."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(launch, _Relay(told))
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except Exception as error:
        # Where it was raised is lost between processes.
        error.add_note("".join(traceback.format_exception(error)))
        with contextlib.suppress(OSError):
            told.send(error)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """End this process once its parent has ended, however that was; by force where it does not answer."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
