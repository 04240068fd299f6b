"""Executors by name."""

from __future__ import annotations

from dllm_rl.errors import unknown_name
from harness.executor import Executor, ExecutorName
from harness.executor_fast import FastExecutor
from harness.executor_trusted import TrustedExecutor

EXECUTORS: dict[ExecutorName, Executor] = {"fast": FastExecutor(), "trusted": TrustedExecutor()}


def executor_named(name: str) -> Executor:
    """Return the executor of this name. Raises ConfigError, with the nearest known name, if there is none."""
    for known, executor in EXECUTORS.items():
        if name == known:
            return executor
    raise unknown_name("executor", name, EXECUTORS)
