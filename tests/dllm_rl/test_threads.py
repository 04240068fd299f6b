"""Waiting threads sleep soon for whoever imports the package, unless the user has said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dllm_rl.threads import SPIN_COUNT, wait_politely

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, SPIN_COUNT), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
    ids=["nothing said", "count said", "policy said"],
)
def test_the_users_word_stands(monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: str | None) -> None:
    environment = dict(given)
    monkeypatch.setattr(os, "environ", environment)
    wait_politely()
    assert environment.get("GOMP_SPINCOUNT") == expected


def library_user(first: str) -> list[str]:
    """What a script without our command line has set, and what it is told, by what it imports first."""
    script = f"""
import {first}
import os, torch
from dllm_rl import threads
print(os.environ["GOMP_SPINCOUNT"])
torch.set_num_threads(2)
threads.warn_if_spinning()
threads.warn_if_spinning()
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP", "OMP"))}
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    return [done.stdout.strip(), done.stderr.strip()]


def test_a_library_user_needs_no_setting() -> None:
    assert library_user("dllm_rl.environment") == [SPIN_COUNT, ""]


def test_one_who_imports_pytorch_first_is_told_once() -> None:
    count, told = library_user("torch")
    assert count == SPIN_COUNT
    assert told.count("PyTorch was imported before dllm_rl") == 1 and f"GOMP_SPINCOUNT={SPIN_COUNT}" in told
