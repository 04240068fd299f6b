"""Evaluation of one policy: k sampled rollouts a task and one greedy pass, with common random numbers across cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dllm_rl import seeding
from dllm_rl.records.tasks import Task
from dllm_rl.training.engine import RolloutEngine

# Raised whenever the same policy would be evaluated with other numbers: results are keyed by it.
VERSION = 1
_SAMPLE_STRIDE = 1_000_003


def evaluate(
    engine: RolloutEngine,
    tasks: Sequence[Task],
    *,
    num_samples: int,
    seed: int,
    batch_rows: int = 96,
    on_result: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Rows of the results table for one policy, ordered by task, then greedy before sampled.

    engine: its sampler's temperature is that of the sampled passes; its processes share the rollouts of each batch, and
        all of them return all rows.
    num_samples: sampled rollouts a task.
    seed: names the noise; equal seeds give equal noise in every cell.
    batch_rows: rollouts that one process samples at a time.
    on_result: gets (rollouts done, rollouts in all).
    """
    number = {task.id: index for index, task in enumerate(tasks)}
    passes = [
        ("greedy", engine.at_temperature(0.0), [(0, task) for task in tasks]),
        ("sampled", engine, [(sample, task) for sample in range(num_samples) for task in tasks]),
    ]
    rows: list[dict[str, Any]] = []
    for mode, drawing, jobs in passes:
        size = batch_rows * engine.ranks.count
        for part in (jobs[start : start + size] for start in range(0, len(jobs), size)):
            row_ids = [sample * _SAMPLE_STRIDE + number[task.id] for sample, task in part]
            batch = drawing.run([task for _, task in part], row_ids, seed=noise_seed(seed))
            for (sample, _), rollout in zip(part, batch.rollouts, strict=True):
                rows.append(rollout.to_row(mode=mode, sample=sample))
            if on_result is not None:
                on_result(len(rows), len(tasks) * (1 + num_samples))
    return sorted(rows, key=lambda row: (number[row["task_id"]], row["mode"], row["sample"]))


def noise_seed(seed: int) -> int:
    """Seed of the samplers at an evaluation of this seed; the greedy row of a task is named by the task's number."""
    return seeding.derive(seed, "evaluation")
