"""The same three tasks at the start, at the best and at the last waypoint of a cell's first seed, with their films."""

from __future__ import annotations

import itertools
import math
from typing import Any

from experiments.report.load import CellRun
from experiments.run.folder import SnapshotRecord

_FIELDS = ("plan", "success", "submitted", "reward", "field_accuracy", "near_miss", "fault", "notes", "film")


def waypoints_of(cell: CellRun) -> dict[str, Any] | None:
    """What the page shows of one cell; None where no seed took a waypoint, the warm start none, or none of a task.

    Best is the waypoint before which the mean training reward, since the waypoint before it, was highest: nothing
    that is evaluated. Tasks that a waypoint lacks (the evaluation was changed in between) are left out.
    """
    start = cell.warm_start.snapshots if cell.warm_start is not None else []
    first = next((seed for seed in cell.seeds if seed.snapshots), None)
    if not start or first is None:
        return None
    taken = first.snapshots
    steps = [0, *(item.step for item in taken)]
    means = [_mean_reward(first.metrics, low, high) for low, high in itertools.pairwise(steps)]
    best = taken[max(range(len(taken)), key=lambda index: means[index])]
    last = taken[-1]
    shown = [("start", start[0]), ("best", best), ("last", last)]
    if best is last:
        shown = [("start", start[0]), ("best and last", last)]
    tasks = _by_task(shown)
    return {"seed": first.seed, "tasks": tasks} if tasks else None


def _by_task(shown: list[tuple[str, SnapshotRecord]]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for when, item in shown:
        for row in item.rows:
            task = {"task": row["task_id"], "instruction": row["instruction"], "plans": []}
            found.setdefault(row["task_id"], task)["plans"].append(
                {"when": when, "step": item.step, **{name: row[name] for name in _FIELDS}}
            )
    return [task for task in found.values() if len(task["plans"]) == len(shown)]


def _mean_reward(metrics: list[dict[str, Any]], low: int, high: int) -> float:
    """Mean training reward of steps low..high - 1; -inf where none is finite."""
    values = [row["reward"] for row in metrics if low <= row["step"] < high and "reward" in row]
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return sum(finite) / len(finite) if finite else -math.inf
