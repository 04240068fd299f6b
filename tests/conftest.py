"""Shared by all tests: one thread (two cores, several tests), and tiny policies of every family with random weights."""

from __future__ import annotations

import os
import signal
import sys

import pytest


def pytest_configure() -> None:
    """What tests start answers Ctrl-C, also where they run in the background, and compiles no module a second time."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def pytest_xdist_auto_num_workers() -> int:
    """One more than cores, since tests wait for browsers and for processes that end."""
    return len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with a slow test come first, so that at the end no core waits for another's long one."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_policies():
    from tests.tiny_policies import make_tiny_policy

    return {family: make_tiny_policy(family) for family in ("autoregressive", "masked", "block", "slot", "flow")}
