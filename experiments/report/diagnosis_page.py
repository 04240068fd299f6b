"""The page of `dllm-rl diagnose`: curves of logged runs with their onsets, what moved first, what was looked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from experiments.analysis.collapse import Diagnosis, title_of
from experiments.analysis.collapse.departures import OUTCOMES, SIGNALS
from experiments.analysis.collapse.series import Series, component_names, read_series, uniform
from experiments.analysis.collapse.sources import LoggedRun
from experiments.report import charts
from experiments.report.build import plain
from experiments.report.curves import MAX_POINTS
from experiments.report.page import checks_of, page_environment, timeline_of

_NOTES = {
    "reward": "mean over a logged step's rollouts",
    "eval_reward": "on held-out tasks",
    "reward_std": "mean spread of the rewards of a group",
    "frac_reward_zero_std": "share of groups in which all rewards are alike",
    "cut_share": "share of completions cut off at the cap",
    "entropy": "mean over tokens, nats",
    "kl": "to the reference policy",
    "grad_norm": "before clipping",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosed:
    """A run with its diagnosis."""

    run: LoggedRun
    diagnosis: Diagnosis


def render_diagnosis(path: Path, found: Sequence[Diagnosed], *, notes: Sequence[str] = ()) -> str:
    """Render the runs found under a path.

    Args:
        notes: Sentences on groups of runs.
    """
    environment = page_environment()
    cells = _cells(found)
    rows = {id(item): uniform(item.run.metrics) for item in found}
    names = dict.fromkeys(["reward", "success", "eval_reward"])
    names |= dict.fromkeys(name for item in found for name in component_names(rows[id(item)]))
    names |= dict.fromkeys(["frac_reward_zero_std", "reward_std", *(signal.name for signal in SIGNALS)])
    figures = [_figure(name, [(item, rows[id(item)]) for item in found]) for name in names]
    timelines = [timeline for cell in cells if (timeline := timeline_of(cell)) is not None]
    return environment.get_template("diagnosis.html.j2").render(
        path=path.name or str(path),
        headline=_headline(found),
        notes=notes,
        runs=[(item.run, item.diagnosis, title_of(item.diagnosis.kind), _tone(item.diagnosis)) for item in found],
        figures=[figure for figure in figures if figure is not None],
        style=Markup(environment.get_template("style.css").render()),
        timelines=timelines,
        checks=checks_of(cells),
        too_short=all(item.diagnosis.kind == "too_short" for item in found),
        unit="run",
        whole="run",
    )


def _headline(found: Sequence[Diagnosed]) -> str:
    if len(found) == 1:
        return found[0].diagnosis.sentence
    num_collapsed = sum(item.diagnosis.is_collapsed for item in found)
    return f"{num_collapsed} of {len(found)} runs collapsed."


def _tone(diagnosis: Diagnosis) -> str:
    """Class of the page's style sheet."""
    if diagnosis.is_collapsed:
        return "collapsed"
    return {"healthy": "equivalent", "too_short": "owed"}.get(diagnosis.kind, "single_seed")


def _cells(found: Sequence[Diagnosed]) -> list[dict[str, Any]]:
    """Groups of runs as the report's cells are."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for item in found:
        record = plain({**asdict(item.diagnosis), "title": title_of(item.diagnosis.kind)})
        groups.setdefault(item.run.group, []).append({"seed": item.run.seed, "diagnosis": record})
    return [{"id": group, "role": "cell", "seeds": seeds} for group, seeds in groups.items()]


def _figure(name: str, found: Sequence[tuple[Diagnosed, list[dict[str, Any]]]]) -> dict[str, Any] | None:
    """Charts of one metric, of the runs that have it; None where none has. Runs of a group share an axis."""
    curves = [(item, series) for item, rows in found if len((series := read_series(rows, name)).finite())]
    if not curves:
        return None
    values: dict[str, list[float]] = {}
    for item, series in curves:
        values.setdefault(item.run.group, []).extend(series.finite().values.tolist())
    axes = {group: charts.curve_axis(of_group) for group, of_group in values.items()}
    return {
        "name": name,
        "note": _NOTES.get(name, ""),
        "plots": [_plot(name, item, series, axes[item.run.group]) for item, series in curves],
    }


def _plot(name: str, item: Diagnosed, series: Series, axis: charts.Axis) -> dict[str, Any]:
    diagnosis = item.diagnosis
    stride = math.ceil(len(series) / MAX_POINTS)
    chart = charts.curve_chart(
        [{"steps": series.steps[::stride].tolist(), "values": series.values[::stride].tolist()}],
        axis,
        last_step=diagnosis.last_step,
        label=f"{name} of {item.run.name}, steps 0 to {diagnosis.last_step}, axis {axis.low:g} to {axis.high:g}",
        onsets=[] if diagnosis.onset is None else [diagnosis.onset],
        departures=[step.step for step in diagnosis.departures if step.signal == name and name not in OUTCOMES],
    )
    return {"run": item.run, "axis": axis, "chart": chart, "end": float(series.finite().values[-1])}
