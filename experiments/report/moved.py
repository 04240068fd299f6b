"""The section on what moved first and what was looked for: of cells and their seeds, or of runs of other trainers."""

from __future__ import annotations

from collections import Counter
from typing import Any

from experiments.analysis.collapse.diagnosis import USUAL_CAUSE
from experiments.report import charts


def timeline_of(cell: dict[str, Any]) -> dict[str, Any] | None:
    """What moved first in a cell: one row a signal, the earliest on top; None where nothing left its band."""
    runs = [seed["diagnosis"] for seed in cell["seeds"]]
    by_signal: dict[str, list[int]] = {}
    for run in runs:
        for item in run["departures"]:
            by_signal.setdefault(item["signal"], []).append(item["step"])
    found = [run for run in runs if run["kind"] not in ("healthy", "too_short")]
    if not by_signal and not found:
        return None
    last_step = max(run["last_step"] for run in runs)
    falls = [run["onset"] for run in runs if run["is_collapsed"] and run["onset"] is not None]
    rows = [
        (signal, steps, charts.onset_chart(steps, last_step, label=f"{signal} left its band at {steps}", fall=falls))
        for signal, steps in sorted(by_signal.items(), key=lambda item: min(item[1]))
    ]
    kinds = Counter((run["kind"], run["title"]) for run in found)
    return {
        "cell": cell,
        "num_runs": sum(run["num_steps"] > 0 for run in runs),
        "rows": rows,
        "last_step": last_step,
        "kinds": [(title, count, USUAL_CAUSE[kind]) for (kind, title), count in kinds.most_common()],
        "sentences": [
            _of_seed(seed, seed["diagnosis"]["sentence"]) for seed in cell["seeds"] if seed["diagnosis"]["num_steps"]
        ],
        "is_collapsed": bool(falls),
    }


def checks_of(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each thing looked for: in how many runs it was found, not found, or could not be told."""
    table: dict[str, dict[str, Any]] = {}
    for cell in cells:
        for seed in cell["seeds"]:
            if not seed["diagnosis"]["num_steps"]:
                continue
            for check in seed["diagnosis"]["checks"]:
                row = table.setdefault(check["name"], {"name": check["name"], "counts": Counter(), "where": {}})
                row["counts"][check["outcome"]] += 1
                if check["outcome"] == "found":
                    row["where"].setdefault(cell["id"], []).append(_of_seed(seed, check["detail"]))
    return list(table.values())


def _of_seed(seed: dict[str, Any], text: str) -> str:
    """Text with the seed that it is about; a run of another trainer has a name in its place, or none."""
    name = seed["seed"] if isinstance(seed["seed"], str) else f"seed {seed['seed']}"
    return f"{name}: {text}" if name else text
