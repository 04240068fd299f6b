"""The same tasks before and after: one newly solved, one newly lost, one still missed, as far as they exist."""

from __future__ import annotations

from typing import Any

from experiments.report.load import Run
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
