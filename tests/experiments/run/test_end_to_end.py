"""A small grid in real Chromium, interrupted by Ctrl-C and by kill -9, ends in the results of an undisturbed one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

from experiments.run.results import is_equal
from experiments.run.status import read_status
from tests.processes import Forked, command, command_line, descendants

SETTINGS = (
    "policies=[autoregressive]",
    "objectives=[grpo,espo]",
    "controls=[]",
    "training_tasks.max_tasks=4",
    "train.steps=2",
    "evaluation.max_tasks=2",
    "threads=1",
)
DEADLINE_SECONDS = 400


def start(out: Path, *options: str) -> Forked:
    # One process: units then come in their order (several are tested in test_processes.py).
    settings = [*SETTINGS, "--workers", "1", "--out", str(out), *options]
    return Forked(command, "grid", "ci", *settings, output=out.with_suffix(f".{time.monotonic_ns()}"))


def finish(out: Path, *options: str) -> str:
    process = start(out, *options)
    text = process.end(DEADLINE_SECONDS)
    assert process.code == 0, text
    return text


def stop(process: Forked, out: Path, cell: str, number: signal.Signals) -> str:
    """Send the signal once the cell has done a step, and wait for the end."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not any(path.read_text().count("\n") for path in out.glob(f"cells/{cell}-*/seed0/metrics.jsonl")):
        assert process.code is None, process.end()
        assert time.monotonic() < deadline, "the cell never began"
        time.sleep(0.02)
    process.send(number)
    return process.end(DEADLINE_SECONDS)


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_interrupted_grid_ends_in_the_same_results(tmp_path) -> None:
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    finish(undisturbed)

    process = start(disturbed)
    text = stop(process, disturbed, "autoregressive-grpo", signal.SIGINT)
    assert process.code == 130, text
    assert "The same command continues" in text
    assert "Traceback" not in text

    process = start(disturbed)
    stop(process, disturbed, "autoregressive-espo", signal.SIGKILL)
    assert process.code == -signal.SIGKILL

    assert "3 units of work; 2 are finished already" in finish(disturbed)
    assert is_equal(disturbed / "results.parquet", undisturbed / "results.parquet")
    assert (disturbed / "report.html").stat().st_size > 10_000
    verdicts = json.loads((disturbed / "report.json").read_text())["cells"]
    assert {cell["verdict"] for cell in verdicts} == {"single_seed"}
    made_by = [json.loads(path.read_text())["versions"] for path in disturbed.rglob("cell.json")]
    assert len(made_by) == 3 and all(versions["chromium"] for versions in made_by)


def kill_one(root: int, *, is_renderer: bool) -> bool:
    """End a renderer or a browser below `root`; whether there was one. The shell script that starts it is neither."""
    for pid in descendants(root):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            line = command_line(pid)
            kind = (b"--type=renderer" in line) if is_renderer else (b"--type=" not in line)
            if kind and b"--remote-debugging-pipe" in line and not line.startswith(b"/bin/sh"):
                os.kill(pid, signal.SIGKILL)
                return True
    return False


@pytest.mark.browser
@pytest.mark.soak
def test_browsers_killed_throughout_a_grid_change_no_number(tmp_path) -> None:
    """Every three seconds a process of a browser ends by kill -9, by turns the browser itself and a renderer."""
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    longer = ("train.steps=8", "evaluation.max_tasks=12")
    finish(undisturbed, *longer)

    process = start(disturbed, *longer)
    num_killed = 0
    while process.code is None:
        time.sleep(3.0)
        is_renderer = num_killed % 2 == 1
        num_killed += kill_one(process.pid, is_renderer=is_renderer)
    text = process.end()
    assert process.code == 0, text
    assert num_killed >= 8
    assert is_equal(disturbed / "results.parquet", undisturbed / "results.parquet")
    print(f"{num_killed} processes killed")


@pytest.mark.browser
@pytest.mark.soak
def test_two_ray_workers_with_browsers_end_in_the_results_of_a_local_run(tmp_path) -> None:
    """The first worker that trains ends by kill -9, and after it a browser of whoever works then."""
    pytest.importorskip("ray")
    local, cluster = tmp_path / "local", tmp_path / "cluster"
    finish(local)

    process = start(cluster, "--executor", "ray", "--workers", "2")
    worker = first_training(process, cluster)
    os.kill(worker, signal.SIGKILL)
    while (other := first_training(process, cluster)) == worker:
        time.sleep(0.05)
    while not kill_one(other, is_renderer=False):
        assert process.code is None, process.end()
        time.sleep(0.05)
    text = process.end(DEADLINE_SECONDS)
    assert process.code == 0, text
    assert is_equal(cluster / "results.parquet", local / "results.parquet")


def first_training(process: Forked, out: Path) -> int:
    """Process id of a worker that has done a step of its unit."""
    while True:
        assert process.code is None, process.end()
        for metrics in out.glob("cells/*/seed0/metrics.jsonl"):
            status = read_status(metrics.parent)
            if status.state == "running" and status.pid:
                return status.pid
        time.sleep(0.02)
