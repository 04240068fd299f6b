"""`dllm-rl compare RUN RUN`: which cells of two runs differ, by how much, and in which settings the runs do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from dllm_rl.errors import ConfigError
from experiments.analysis.comparison import Difference, compare_runs
from experiments.report.build import plain
from experiments.run.folder import RunFolder

_STYLES = {"higher": "green", "lower": "red", "equivalent": "blue"}
# They name a run, and change nothing in it.
_LABELS = ("name", "description")


def show_comparison(first: Path, second: Path, *, as_json: bool) -> int:
    """Print the paired difference of every cell that both runs have."""
    runs = RunFolder.find(first), RunFolder.find(second)
    for run in runs:
        run.require_results()
    cells = shared_cells(*runs)
    margin = runs[1].config.evaluation.margin
    found = compare_runs(runs[0].results(), runs[1].results(), cells, margin=margin)
    settings = changed_settings(runs[0].config.settings, runs[1].config.settings)
    if as_json:
        record = {"first": str(runs[0].root), "second": str(runs[1].root), "margin": margin, "settings": settings}
        print(json.dumps(plain({**record, "cells": [asdict(item) for item in found]}), indent=2))
        return 0
    _print(found, settings, runs, Console())
    return 0


def shared_cells(first: RunFolder, second: RunFolder) -> list[str]:
    """Cells of both runs, in the first's order. Raises ConfigError where there is none."""
    names = [[cell.id for cell in run.config.cells] for run in (first, second)]
    shared = [name for name in names[0] if name in names[1]]
    if not shared:
        raise ConfigError(
            f"'{first.root}' and '{second.root}' have no cell in common: {', '.join(names[0])}; {', '.join(names[1])}. "
            "Give two runs with cells of equal names."
        )
    return shared


def changed_settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings that are not equal, by their dotted names, with both values; None where a run has none."""
    flat = [dict(_flat(settings)) for settings in (first, second)]
    names = [name for name in dict.fromkeys([*flat[0], *flat[1]]) if name not in _LABELS]
    return {name: (flat[0].get(name), flat[1].get(name)) for name in names if flat[0].get(name) != flat[1].get(name)}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _print(
    found: list[Difference],
    settings: Mapping[str, tuple[Any, Any]],
    runs: tuple[RunFolder, RunFolder],
    console: Console,
) -> None:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    # Of 80 columns, which the longest names of cells share with their numbers.
    for name in ("cell", "seeds\nx tasks", "success %", "difference", "p", ""):
        table.add_column(name, no_wrap=name != "cell", overflow="fold")
    for item in found:
        rates = " → ".join("-" if rate is None else f"{rate:.1f}" for rate in (item.first, item.second))
        p_value = "-" if item.p_adjusted is None else f"{item.p_adjusted:.2g}"
        size, call = f"{item.num_seeds} x {item.num_tasks}", item.call.replace("_", " ")
        table.add_row(item.cell, size, rates, _interval(item), p_value, call, style=_STYLES.get(item.call))
    console.print(table)
    lines = [f"first: {runs[0].root}; second: {runs[1].root}. Points of success, second less first, paired by seed,"]
    lines += [
        "task and sample, with 95 % intervals; p after Holm over these cells. Percentages are of what was paired."
    ]
    lines += ["Provisional: under five seeds."] if any(item.is_provisional for item in found) else []
    lines += [f"{name}: {before} -> {after}" for name, (before, after) in settings.items()]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _interval(item: Difference) -> str:
    """The difference, and below it its interval."""
    return "-" if item.test is None else f"{item.test.mean:+.1f}\n[{item.test.low:+.1f}, {item.test.high:+.1f}]"
