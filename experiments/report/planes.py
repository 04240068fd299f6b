"""Charts with one line an objective or policy: reward against entropy and KL, and survival until collapse."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.analysis.collapse.series import trailing_mean, window_of
from experiments.report import charts

_PLANES = (("entropy", "Reward against entropy", "entropy"), ("kl", "Reward against KL", "KL to the warm start"))
_MIN_POINTS = 4


def phase_blocks(cells: list[dict[str, Any]], objectives: list[str]) -> list[dict[str, Any]]:
    """For each plane one chart a policy, one path an objective: means over seeds, smoothed by the diagnosis' window."""
    cells = [cell for cell in cells if cell["role"] in ("cell", "positive")]
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
        blocks.append({"title": title, "axis": axis_name, "across": across, "up": up, "plots": plots})
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
