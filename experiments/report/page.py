"""The page: report.json's data rendered into one HTML file without a script or a font.

It links to nothing but the films of the run folder that it lies in.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dllm_rl.records.tasks import Ending
from experiments.analysis.collapse.diagnosis import USUAL_CAUSE
from experiments.analysis.collapse.series import trailing_mean, window_of
from experiments.report import charts
from experiments.report.choosing import ORDERS, Levels, ranks_of
from experiments.report.curves import CURVES, Curve, commit_blocks
from experiments.report.meanings import Meanings
from experiments.report.tables import (
    GLYPHS,
    all_cells,
    effect_of,
    has_begun,
    interval_of,
    label_of,
    percent,
    seeds_of,
)

_MARGIN_VIEW = 10.0


def render(report: dict[str, Any]) -> str:
    """Render a report's data (as `build_report` returns it)."""
    environment = page_environment()
    cells, matrix = all_cells(report), _matrix(report["cells"])
    begun = [cell for cell in cells if has_begun(cell)]
    levels = Levels(policies=tuple(policy for policy, _ in matrix["rows"]), objectives=tuple(matrix["objectives"]))
    return environment.get_template("template.html.j2").render(
        report=report,
        levels=levels,
        meanings=Meanings(),
        orders=ORDERS,
        ranked=list(zip(cells, ranks_of(cells), strict=True)),
        unit="seed",
        whole="cell",
        cells=cells,
        begun=begun,
        absent=[cell["id"] for cell in cells if not has_begun(cell)],
        style=Markup(environment.get_template("style.css").render()),
        matrix=matrix,
        has_episodes=any(cell["episodes"] is not None for cell in cells),
        endings=[ending.value for ending in Ending],
        forest=_forest(begun, report["evaluation"]["margin"]),
        curves=[block for curve in CURVES if (block := _curve_block(curve, _in_rows(cells), report)) is not None],
        timelines=[timeline for cell in cells if (timeline := timeline_of(cell)) is not None],
        checks=checks_of(cells),
        too_short=all(seed["diagnosis"]["kind"] == "too_short" for cell in begun for seed in cell["seeds"]),
        commits=commit_blocks(cells),
        phases=phase_blocks(cells, matrix["objectives"]),
        survival=survival_blocks(report),
        timing=_timing(report["timing"]),
        settings=json.dumps(report["settings"], indent=2, ensure_ascii=False),
    )


def page_environment() -> Environment:
    """Templates of pages, with their filters and the names that all of them use."""
    environment = Environment(
        loader=PackageLoader("experiments.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(percent=percent, points=_points, number=_number, duration=_duration, shown=_shown)
    environment.globals.update(
        glyphs=GLYPHS,
        label_of=label_of,
        effect_of=effect_of,
        interval_of=interval_of,
        seeds_of=seeds_of,
        usual_cause=USUAL_CAUSE,
    )
    return environment


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}g}"


def _shown(text: str, limit: int = 2000) -> str:
    """What a policy wrote, fit for a page: control characters made visible, long text cut."""
    visible = "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)
    return visible if len(visible) <= limit else visible[:limit] + " ..."


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _matrix(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Policies down, objectives across; None where the preset has no such cell."""
    policies = list(dict.fromkeys(cell["policy"] for cell in cells))
    objectives = list(dict.fromkeys(cell["objective"] for cell in cells))
    found = {(cell["policy"], cell["objective"]): cell for cell in cells}
    rows = [(policy, [found.get((policy, objective)) for objective in objectives]) for policy in policies]
    return {"objectives": objectives, "rows": rows}


def _in_rows(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cells that have begun, and those beside them in the matrix, so that a column of charts stays one objective."""
    rows = {cell["policy"] for cell in cells if cell["role"] == "cell" and has_begun(cell)}
    return [cell for cell in cells if has_begun(cell) or (cell["role"] == "cell" and cell["policy"] in rows)]


def _forest(cells: list[dict[str, Any]], margin: float) -> dict[str, Any]:
    values = [
        cell[name]
        for cell in cells
        for name in ("low", "high", "bootstrap_low", "bootstrap_high")
        if cell[name] is not None and cell["verdict"] != "owed"
    ]
    values += [value for cell in cells for value in cell["seed_effects"].values()]
    axis = charts.span_axis(values, least=max(_MARGIN_VIEW, 2 * margin))
    ticks = [(axis.percent(tick), f"{tick:+g}" if tick else "0") for tick in axis.ticks]
    return {"ticks": ticks, "rows": [(cell, charts.interval_chart(cell, axis, margin=margin)) for cell in cells]}


def _curve_block(curve: Curve, cells: list[dict[str, Any]], report: dict[str, Any]) -> dict[str, Any] | None:
    """All charts of one metric on one axis, or None where no cell has the metric."""
    values = [
        value
        for cell in cells
        for seed in cell["curves"].get(curve.name, [])
        for value in seed["values"]
        if value is not None
    ]
    if not values:
        return None
    references = {item["policy"]: item["sampled"] for item in report["warm_starts"]}
    if curve.reference:
        values += [item[curve.reference] for item in references.values() if item[curve.reference] is not None]
    axis = charts.curve_axis(values, is_share=curve.is_share)
    last_step = max(step for cell in cells for seed in cell["curves"].get(curve.name, []) for step in seed["steps"])
    plots = []
    for cell in cells:
        seeds = cell["curves"].get(curve.name, [])
        reference = references.get(cell["policy"], {}).get(curve.reference) if curve.reference else None
        if curve.reference == "reward" and not cell["is_reward_comparable"]:
            reference = None
        label = f"{curve.title} of {cell['id']}, steps 0 to {last_step}, axis {axis.low:g} to {axis.high:g}"
        onsets = [
            seed["diagnosis"]["onset"]
            for seed in cell["seeds"]
            if seed["diagnosis"]["is_collapsed"] and seed["diagnosis"]["onset"] is not None
        ]
        chart = charts.curve_chart(
            seeds,
            axis,
            last_step=last_step,
            label=label,
            reference=reference,
            ceiling=cell["curves"].get(curve.ceiling, []),
            onsets=onsets,
        )
        ends = [seed["values"][-1] for seed in seeds if seed["values"] and seed["values"][-1] is not None]
        plots.append({"cell": cell, "chart": chart if seeds else None, "end": sum(ends) / len(ends) if ends else None})
    return {"curve": curve, "axis": axis, "last_step": last_step, "plots": plots}


def _timing(timing: dict[str, Any]) -> dict[str, Any]:
    names = ("sampling", "browser", "update", "evaluation", "warm_starts")
    parts = [(name.replace("_", " "), timing[name]) for name in names]
    label = "Wall time: " + ", ".join(f"{name} {_duration(value)}" for name, value in parts)
    return {"parts": parts, "chart": charts.bar_chart(parts, label=label), "total": timing["total"]}


_PLANES = (("entropy", "Reward against entropy", "entropy"), ("kl", "Reward against KL", "KL to the warm start"))
_MIN_POINTS = 4


def phase_blocks(cells: list[dict[str, Any]], objectives: list[str]) -> list[dict[str, Any]]:
    """For each plane one chart a policy, one path an objective: means over seeds, smoothed by the diagnosis' window."""
    cells = [cell for cell in cells if cell["role"] == "cell"]
    blocks = []
    for name, title, axis_name in _PLANES:
        paths = {(cell["policy"], cell["objective"]): _path(cell, name) for cell in cells}
        points = [point for path in paths.values() for point in path]
        if not points:
            continue
        across, up = (charts.curve_axis([point[index] for point in points]) for index in (0, 1))
        policies = list(dict.fromkeys(policy for policy, _ in paths))
        plots = []
        for policy in policies:
            lines = [paths.get((policy, objective), []) for objective in objectives]
            if not any(lines):
                continue
            label = f"{title}, {policy}: {axis_name} 0 to {across.high:g}, reward 0 to {up.high:g}"
            plots.append((policy, charts.path_chart(lines, across, up, label=label)))
        block = {"anchor": f"phase-{name}", "title": title, "axis": axis_name, "across": across, "up": up}
        blocks.append({**block, "plots": plots})
    return blocks


def _path(cell: dict[str, Any], name: str) -> list[tuple[float, float]]:
    """Points of a cell's mean over seeds, at the steps where both metrics are there."""
    curves = cell["curves"]
    if name not in curves or "reward" not in curves:
        return []
    x, y = (dict(zip(*charts.mean_curve(curves[metric]), strict=True)) for metric in (name, "reward"))
    steps = sorted(x.keys() & y.keys())
    if len(steps) < _MIN_POINTS:
        return []
    window = min(window_of(len(steps)), len(steps) // 2)
    smooth = [trailing_mean(np.array([values[step] for step in steps]), window).tolist() for values in (x, y)]
    return list(zip(*smooth, strict=True))


def survival_blocks(report: dict[str, Any]) -> list[dict[str, Any]]:
    """One chart by policy and one by objective, with the numbers beside each line."""
    last_step = max((seed["diagnosis"]["num_steps"] for cell in report["cells"] for seed in cell["seeds"]), default=0)
    blocks = []
    for kind in ("policy", "objective"):
        curves = [item for item in report["survival"] if item["kind"] == kind]
        if curves:
            label = f"Share of runs not collapsed, by {kind}, steps 0 to {last_step}"
            chart = charts.survival_chart(curves, last_step, label=label)
            blocks.append({"kind": kind, "curves": curves, "chart": chart, "last_step": last_step})
    return blocks


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
