"""Plans of the same tasks side by side: before and after training, and along the way."""

from __future__ import annotations

import itertools
import math
from typing import Any

from experiments.report.load import CellRun, Run
from experiments.run.folder import SnapshotRecord
from experiments.run.results import UnitKey, is_lost

_FIELDS = ("plan", "success", "submitted", "reward", "field_accuracy", "near_miss", "fault", "notes")
_CHANGES = (
    ("newly solved", False, True),
    ("newly lost", True, False),
    ("still missed", False, False),
    ("solved both times", True, True),
)
MAX_EXAMPLES = 3


def examples_of(run: Run) -> dict[str, list[dict[str, Any]]]:
    """Examples of each cell: greedy plans of its first seed against the warm start's, at most three."""
    greedy: dict[str, dict[str, dict[str, Any]]] = {}
    first_seed: dict[str, int] = {}
    for row in run.results.select(["cell", "seed", "task_id", "mode", *_FIELDS]).to_pylist():
        if row["mode"] != "greedy" or is_lost(row["fault"]):
            continue
        if first_seed.setdefault(row["cell"], row["seed"]) == row["seed"]:
            greedy.setdefault(row["cell"], {})[row["task_id"]] = {name: row[name] for name in _FIELDS}
    return {
        cell.id: _examples(greedy.get(UnitKey(policy=cell.record.policy).label, {}), greedy.get(cell.id, {}))
        for cell in run.cells
    }


def _examples(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    chosen = []
    for change, was, became in _CHANGES:
        tasks = [
            task
            for task in sorted(before.keys() & after.keys())
            if before[task]["success"] == was and after[task]["success"] == became
        ]
        # A plan that changed says more than one that did not.
        tasks.sort(key=lambda task: before[task]["plan"] == after[task]["plan"])
        if tasks:
            chosen.append({"task": tasks[0], "change": change, "before": before[tasks[0]], "after": after[tasks[0]]})
    return chosen[:MAX_EXAMPLES]


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
                {"when": when, "step": item.step, **{name: row[name] for name in (*_FIELDS, "film")}}
            )
    return [task for task in found.values() if len(task["plans"]) == len(shown)]


def _mean_reward(metrics: list[dict[str, Any]], low: int, high: int) -> float:
    """Mean training reward of steps low..high - 1; -inf where none is finite."""
    values = [row["reward"] for row in metrics if low <= row["step"] < high and "reward" in row]
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return sum(finite) / len(finite) if finite else -math.inf
