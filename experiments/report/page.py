"""The page: report.json's data rendered into one HTML file without a script or a font.

It links to nothing but the films of the run folder that it lies in.
"""

from __future__ import annotations

import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from experiments.analysis.collapse.diagnosis import USUAL_CAUSE
from experiments.report import charts
from experiments.report.commits import commit_blocks
from experiments.report.curves import CURVES, Curve
from experiments.report.moved import checks_of, timeline_of
from experiments.report.planes import phase_blocks, survival_blocks
from experiments.report.tables import GLYPHS, all_cells, effect_of, has_begun, label_of, percent

_MARGIN_VIEW = 10.0


def render(report: dict[str, Any]) -> str:
    """Render a report's data (as `build_report` returns it)."""
    environment = page_environment()
    cells, matrix = all_cells(report), _matrix(report["cells"])
    begun = [cell for cell in cells if has_begun(cell)]
    return environment.get_template("template.html.j2").render(
        report=report,
        unit="seed",
        whole="cell",
        cells=cells,
        begun=begun,
        absent=[cell["id"] for cell in cells if not has_begun(cell)],
        style=Markup(environment.get_template("style.css").render()),
        matrix=matrix,
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
    environment.globals.update(glyphs=GLYPHS, label_of=label_of, effect_of=effect_of, usual_cause=USUAL_CAUSE)
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
        label = f"{curve.title} of {cell['id']}, steps 0 to {last_step}, axis {axis.low:g} to {axis.high:g}"
        onsets = [
            seed["diagnosis"]["onset"]
            for seed in cell["seeds"]
            if seed["diagnosis"]["is_collapsed"] and seed["diagnosis"]["onset"] is not None
        ]
        chart = charts.curve_chart(seeds, axis, last_step=last_step, label=label, reference=reference, onsets=onsets)
        ends = [seed["values"][-1] for seed in seeds if seed["values"] and seed["values"][-1] is not None]
        plots.append({"cell": cell, "chart": chart if seeds else None, "end": sum(ends) / len(ends) if ends else None})
    return {"curve": curve, "axis": axis, "last_step": last_step, "plots": plots}


def _timing(timing: dict[str, Any]) -> dict[str, Any]:
    names = ("sampling", "browser", "update", "evaluation", "warm_starts")
    parts = [(name.replace("_", " "), timing[name]) for name in names]
    label = "Wall time: " + ", ".join(f"{name} {_duration(value)}" for name, value in parts)
    return {"parts": parts, "chart": charts.bar_chart(parts, label=label), "total": timing["total"]}
