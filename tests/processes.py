"""Processes for tests: those that begin with everything imported, and what runs below one.

A fresh interpreter takes seconds to import what a grid needs. Tests of signals, locks and resumed runs need processes
of their own and not fresh interpreters, so theirs are forked from one that has imported everything and does no more.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "accelerate",
        "datasets",
        "peft",
        "experiments.cli.commands",
        "experiments.cli.grid",
        "experiments.report",
        "experiments.run.cell",
        "experiments.run.policies",
        "experiments.run.processes",
        "harness.environments",
        "objectives",
        "samplers",
    ]
)


class Forked:
    """A function in a process of its own, which leads a process group. Its standard output and errors go to a file.

    Args:
        function: Of a module, since it is sent by its name.
        output: The file. Several processes need several.
        cwd: Where it runs; None is where the tests do.
        environment: Variables that it finds beside those of the tests.
        paths: Folders from which it imports before all others.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        output: Path,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
        paths: Sequence[Path] = (),
    ) -> None:
        self.output = output
        output.touch()
        place = (output, cwd or Path.cwd(), environment or {}, list(map(str, paths)))
        self._process = SERVER.Process(target=_begin, args=(*place, function, arguments))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def code(self) -> int | None:
        """Exit code; the negative number of a signal that ended it; None while it runs."""
        return self._process.exitcode

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this process alone."""
        os.kill(self.pid, number)

    def end(self, timeout: float = 280) -> str:
        """Wait for its end; what it wrote."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            os.killpg(self.pid, signal.SIGKILL)
            raise TimeoutError(f"still running after {timeout} s:\n{self.output.read_text()}")
        return self.output.read_text()


def _begin(
    output: Path, cwd: Path, environment: dict[str, str], paths: list[str], function: Callable[..., Any], arguments: Any
) -> None:
    import torch

    torch.set_num_threads(1)
    os.setsid()
    with output.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(cwd)
    os.environ.update(environment)
    sys.path[:0] = paths
    function(*arguments)


def launched(function: Callable[..., Any], *arguments: Any, folder: Path, count: int = 2) -> None:
    """Run a function in several processes that find each other as those of `accelerate launch` do, over loopback."""
    port = free_port()
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    shared |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    processes = [
        Forked(
            function,
            *arguments,
            output=folder / f"said{rank}",
            environment={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]
    told = [process.end() for process in processes]
    assert [process.code for process in processes] == [0] * count, "\n".join(told)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def command(*arguments: str) -> None:
    """What `dllm-rl` does with these arguments."""
    from experiments.cli import main

    sys.argv = ["dllm-rl", *arguments]
    main()


def descendants(root: int) -> set[int]:
    """Processes below one, by /proc."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue
        if state != "Z":
            parents[int(folder.name)] = int(parent)
    found: set[int] = set()
    while more := {pid for pid, parent in parents.items() if parent in found | {root}} - found:
        found |= more
    return found


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
