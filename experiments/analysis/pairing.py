"""Evaluated rollouts, plain and paired: means of them, and how a cell differs from its warm start, task by task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from dllm_rl.records.tasks import Fault
from experiments.run.results import is_lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Plain means over evaluated rollouts, those that were lost left out. A mean of no rollout is None.

    Attributes:
        lost: Rollouts that were lost.
        unjudged: Of these, those that the judge of the reward gave no answer for; the others are the environment's.
        right: Share that is right: a success or a near miss. The ceiling of success while no field is learned.
        conversion: Successes among those that are right, as `dllm_rl.training.conversion` counts them in training.
    """

    num_rollouts: int
    lost: int
    unjudged: int
    success: float | None
    reward: float | None
    field_accuracy: float | None
    submitted: float | None
    right: float | None
    near_miss: float | None
    conversion: float | None
    parsed: float | None


def _columns(rows: pa.Table, *names: str) -> list[np.ndarray]:
    return [np.asarray(rows.column(name).to_pylist()) for name in names]


# Seed, task and sample.
_Key = tuple[int, str, int]


def _by_rollout(rows: pa.Table, outcome: str) -> dict[_Key, float | None]:
    """Outcome of each (seed, task, sample); None where it was lost."""
    names = ("seed", "task_id", "sample", "fault", outcome)
    return {
        (seed, task, sample): None if is_lost(fault) else float(value)
        for seed, task, sample, fault, value in zip(*(rows.column(name).to_pylist() for name in names), strict=True)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Mean paired difference of each seed and task, over the samples that neither side lost.

    Attributes:
        baseline: Mean outcome of the side that is compared with, over the same samples.
    """

    table: Float[np.ndarray, "s t"]
    baseline: Float[np.ndarray, "s t"]
    seeds: tuple[int, ...]
    tasks: tuple[str, ...]
    num_pairs: int
    num_lost: int
    num_dropped_tasks: int


def pair(cell_rows: pa.Table, baseline_rows: pa.Table, *, outcome: str = "success") -> Pairs:
    """Pair each rollout of a cell with the warm start's rollout of the same task and sample; drop pairs with a loss.

    A task that keeps no pair for some seed is dropped for all seeds, so that the table is complete.
    """
    baseline = {(task, sample): value for (_, task, sample), value in _by_rollout(baseline_rows, outcome).items()}
    rollouts = _by_rollout(cell_rows, outcome)
    return _paired(rollouts, {key: baseline.get(key[1:]) for key in rollouts})


def pair_by_seed(second_rows: pa.Table, first_rows: pa.Table, *, outcome: str = "success") -> Pairs:
    """Pair rollouts of equal seed, task and sample of two runs; seeds that only one has are left out."""
    first, second = _by_rollout(first_rows, outcome), _by_rollout(second_rows, outcome)
    seeds = {seed for seed, _, _ in first}
    shared = {key: value for key, value in second.items() if key[0] in seeds}
    return _paired(shared, {key: first.get(key) for key in shared})


def _paired(after: dict[_Key, float | None], before: dict[_Key, float | None]) -> Pairs:
    """Pair outcomes under equal keys; None where a side lost its rollout, or never had it."""
    found: dict[tuple[int, str], list[tuple[float, float]]] = {}
    num_lost = 0
    for key, value in after.items():
        other = before[key]
        if value is None or other is None:
            num_lost += 1
        else:
            found.setdefault(key[:2], []).append((value, other))
    seeds = tuple(sorted({seed for seed, _, _ in after}))
    all_tasks = sorted({task for _, task, _ in after})
    tasks = tuple(task for task in all_tasks if all((seed, task) in found for seed in seeds))
    kept = [[found[seed, task] for task in tasks] for seed in seeds]
    table = [[np.mean([value - other for value, other in pairs]) for pairs in row] for row in kept]
    baseline = [[np.mean([other for _, other in pairs]) for pairs in row] for row in kept]
    return Pairs(
        table=np.array(table).reshape(len(seeds), len(tasks)),
        baseline=np.array(baseline).reshape(len(seeds), len(tasks)),
        seeds=seeds,
        tasks=tasks,
        num_pairs=sum(len(pairs) for row in kept for pairs in row),
        num_lost=num_lost,
        num_dropped_tasks=len(all_tasks) - len(tasks),
    )


def summarise(rows: pa.Table) -> Summary:
    """Summarise evaluated rollouts."""
    faults, success, reward, accuracy, submitted, near_miss, parsed = _columns(
        rows, "fault", "success", "reward", "field_accuracy", "submitted", "near_miss", "parsed"
    )
    kept = np.array([not is_lost(fault) for fault in faults], dtype=bool)

    def mean(values: np.ndarray, where: np.ndarray = kept) -> float | None:
        chosen = values[where] if len(values) else values
        return float(np.mean(chosen.astype(float))) if len(chosen) else None

    right = success.astype(bool) | near_miss.astype(bool)
    return Summary(
        num_rollouts=int(kept.sum()) if len(faults) else 0,
        lost=int((~kept).sum()) if len(faults) else 0,
        unjudged=int((faults == Fault.JUDGE.value).sum()) if len(faults) else 0,
        success=mean(success),
        reward=mean(reward),
        field_accuracy=mean(accuracy),
        submitted=mean(submitted),
        right=mean(right),
        near_miss=mean(near_miss),
        conversion=mean(success, kept & right),
        parsed=mean(parsed),
    )


def split_by(rows: pa.Table, name: str) -> dict[str, pa.Table]:
    """Tables of the rows of each value of a text column."""
    index: dict[str, list[int]] = {}
    for position, value in enumerate(rows.column(name).to_pylist()):
        index.setdefault(value, []).append(position)
    return {value: rows.take(pa.array(positions, type=pa.int64())) for value, positions in index.items()}
