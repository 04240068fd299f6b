"""A small grid in real Chromium, interrupted by Ctrl-C and by kill -9, ends in the results of an undisturbed one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.results import is_equal

SETTINGS = (
    "policies=[autoregressive]",
    "objectives=[grpo,espo]",
    "controls=[]",
    "train.steps=3",
    "evaluation.max_tasks=3",
    "threads=1",
)
DEADLINE_SECONDS = 400


def start(out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "experiments.cli", "grid", "ci", *SETTINGS, "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(out: Path) -> str:
    process = start(out)
    text, _ = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0, text
    return text


def stop(process: subprocess.Popen[str], out: Path, cell: str, number: signal.Signals) -> str:
    """Send the signal once the cell has done a step, and wait for the end."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not any(path.read_text().count("\n") for path in out.glob(f"cells/{cell}-*/seed0/metrics.jsonl")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the cell never began"
        time.sleep(0.02)
    process.send_signal(number)
    return process.communicate(timeout=DEADLINE_SECONDS)[0]


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_interrupted_grid_ends_in_the_same_results(tmp_path) -> None:
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    finish(undisturbed)

    process = start(disturbed)
    text = stop(process, disturbed, "autoregressive-grpo", signal.SIGINT)
    assert process.returncode == 130, text
    assert "The same command continues" in text
    assert "Traceback" not in text

    process = start(disturbed)
    stop(process, disturbed, "autoregressive-espo", signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL

    assert "3 units of work; 2 are finished already" in finish(disturbed)
    assert is_equal(disturbed / "results.parquet", undisturbed / "results.parquet")
    assert (disturbed / "report.html").stat().st_size > 10_000
    verdicts = json.loads((disturbed / "report.json").read_text())["cells"]
    assert {cell["verdict"] for cell in verdicts} == {"single_seed"}

    started = time.monotonic()
    assert "3 units of work; 3 are finished already" in finish(disturbed)
    assert time.monotonic() - started < 30
