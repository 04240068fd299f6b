"""In which order a run's sampler wrote its canvases, kept at three steps for the report's diagram."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dllm_rl.files import COMMITS_FILE, append_rows, truncate_rows
from dllm_rl.records.trajectory import commit_counts
from dllm_rl.records.types import Rollouts


def marked_steps(num_steps: int) -> tuple[int, ...]:
    """The training steps at which the order is kept: first, middle and last."""
    return tuple(sorted({0, (num_steps - 1) // 2, num_steps - 1})) if num_steps else ()


def keep_commit_order(folder: Path, num_steps: int) -> Callable[[int, Rollouts], None]:
    """What a trainer calls with each step's rollouts; a step that is run again is written once."""

    def keep(step: int, rollouts: Rollouts) -> None:
        if step in marked_steps(num_steps):
            truncate_rows(folder / COMMITS_FILE, before_step=step)
            append_rows(folder / COMMITS_FILE, [{"step": step, **commit_counts(rollouts)}])

    return keep
