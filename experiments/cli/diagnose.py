"""`dllm-rl diagnose PATH`: what became of each run, what failed first, and what was looked for and not found."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from dllm_rl.files import replace_file
from experiments.analysis.collapse import Diagnosis, diagnose, title_of
from experiments.analysis.collapse.sources import find_runs
from experiments.analysis.collapse.survival import kaplan_meier, lifetime
from experiments.report.build import plain
from experiments.report.diagnosis_page import Diagnosed, render_diagnosis
from experiments.run.folder import refuse_unwritable

_QUIET = ("healthy", "too_short")


def show_diagnosis(path: Path, *, as_json: bool, as_page: bool = False, out: Path | None = None) -> int:
    """Diagnose every run under a path (a file, a seed, a cell, a grid, or a run's name under runs/) and print it.

    Args:
        as_page: Write a page, too, beside the input, or to `out`.
    """
    refuse_unwritable(out, example="diagnosis.html")
    if not path.exists() and (Path("runs") / path).is_dir():
        path = Path("runs") / path
    found = [Diagnosed(run=run, diagnosis=diagnose(run.metrics, is_over=run.is_over)) for run in find_runs(path)]
    if as_page or out is not None:
        page = out or (path / "diagnosis.html" if path.is_dir() else path.with_name(f"{path.name}.diagnosis.html"))
        with replace_file(page) as temporary:
            temporary.write_text(render_diagnosis(path, found, notes=group_lines(found)), encoding="utf-8")
        print(f"wrote {page}", file=sys.stderr)
    if as_json:
        print(
            json.dumps(plain({"path": str(path), "runs": [_record(item) for item in found], "groups": _groups(found)}))
        )
        return 0
    console = Console()
    _print_runs(found, console)
    for line in group_lines(found):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    _print_details(found, console)
    _print_checks(found, console)
    return 0


def _record(item: Diagnosed) -> dict[str, Any]:
    run, diagnosis = item.run, item.diagnosis
    labels = {"run": run.name, "group": run.group, "seed": run.seed, "path": str(run.path)}
    return {**labels, "title": title_of(diagnosis.kind), **asdict(diagnosis)}


def _by_group(found: Sequence[Diagnosed]) -> dict[str, list[Diagnosis]]:
    groups: dict[str, list[Diagnosis]] = {}
    for item in found:
        groups.setdefault(item.run.group, []).append(item.diagnosis)
    return groups


def _groups(found: Sequence[Diagnosed]) -> list[dict[str, Any]]:
    records = []
    for group, diagnoses in _by_group(found).items():
        survival = kaplan_meier([lifetime(item) for item in diagnoses])
        kinds = Counter(item.kind for item in diagnoses)
        records.append({"group": group, "kinds": dict(kinds), **asdict(survival)})
    return records


def group_lines(found: Sequence[Diagnosed]) -> list[str]:
    """One sentence for each group of several seeds in which one collapsed: how many, and the median step."""
    lines = []
    for group, diagnoses in _by_group(found).items():
        survival = kaplan_meier([lifetime(item) for item in diagnoses])
        if survival.num_runs > 1 and survival.num_collapsed:
            median = f", median step {survival.median}" if survival.median is not None else ""
            lines.append(f"{group}: {survival.num_collapsed} of {survival.num_runs} seeds collapsed{median}.")
    return lines


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _print_runs(found: Sequence[Diagnosed], console: Console) -> None:
    table = _table("run", "diagnosis", "onset", "moved first", "steps")
    for item in found:
        diagnosis = item.diagnosis
        onset = "-" if diagnosis.onset is None else str(diagnosis.onset)
        style = "magenta" if diagnosis.is_collapsed else None if diagnosis.kind in _QUIET else "yellow"
        cells = (title_of(diagnosis.kind), onset, diagnosis.first_signal or "-", str(diagnosis.num_steps))
        table.add_row(item.run.name, *cells, style=style)
    console.print(table)


def _print_details(found: Sequence[Diagnosed], console: Console) -> None:
    """The sentence and the order of departures of every run that has something to tell, or of the only one."""
    for item in found:
        if item.diagnosis.kind in _QUIET and len(found) > 1:
            continue
        name = f"{item.run.name}: " if len(found) > 1 else ""
        console.print(f"\n{name}{item.diagnosis.sentence}", markup=False, highlight=False, soft_wrap=True)
        order = [f"{each.signal} at {each.step}" for each in item.diagnosis.departures]
        if order:
            console.print(f"  in order: {', '.join(order)}", markup=False, highlight=False, soft_wrap=True)


def _print_checks(found: Sequence[Diagnosed], console: Console) -> None:
    """What was looked for, over all runs: found, not found, or not to be told."""
    outcomes = ("found", "not found", "too short to tell", "no data")
    counts: dict[str, Counter[str]] = {}
    for item in found:
        for check in item.diagnosis.checks:
            counts.setdefault(check.name, Counter())[check.outcome] += 1
    table = _table("looked for", *outcomes)
    for name, count in counts.items():
        table.add_row(name, *(str(count[outcome] or "-") for outcome in outcomes))
    console.print()
    console.print(table)
