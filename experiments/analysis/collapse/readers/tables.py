"""Metrics in CSV: an export from a chart of wandb, a history as pandas writes it, and what other loggers write."""

from __future__ import annotations

import csv
import io
from typing import Any

# wandb adds the lowest and highest value of each point of a chart.
_BOUNDS = ("__MIN", "__MAX")
_RUN_AND_METRIC = " - "


def csv_runs(text: str) -> dict[str, list[dict[str, Any]]] | None:
    """Rows of each run by its name. A chart's export has a column a run, `<run> - <metric>`; others hold one run."""
    first = text.partition("\n")[0]
    if "," not in first or first.lstrip().startswith(("{", "[")):
        return None
    try:
        table = list(csv.DictReader(io.StringIO(text)))
    except csv.Error:
        return None
    if not table:
        return None
    columns = [name for name in table[0] if name and not name.endswith(_BOUNDS)]
    shared = [name for name in columns if _RUN_AND_METRIC not in name]
    runs: dict[str, dict[str, str]] = {}
    for name in columns:
        run, is_of_run, metric = name.rpartition(_RUN_AND_METRIC)
        if is_of_run:
            runs.setdefault(run, {})[name] = metric
    if not runs:
        return {"": [_row(row, {name: name for name in columns}) for row in table]}
    return {
        run: [_row(row, names | {name: name for name in shared}) for row in table if any(row[name] for name in names)]
        for run, names in runs.items()
    }


def _row(row: dict[str, str], names: dict[str, str]) -> dict[str, Any]:
    """A row under the metrics' own names, without empty cells: they are metrics that were not logged."""
    return {metric: row[name] for name, metric in names.items() if row[name]}
