"""Small inline SVG charts. Colours come from the page's style sheet; words stay outside, so that they never scale.

A position is a percentage of the chart's own box, which makes charts as wide as the reader's screen without distortion
of lines (their strokes do not scale).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from markupsafe import Markup

_WIDTH, _HEIGHT = 240.0, 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A numeric range with a few round ticks.

    Attributes:
        is_cut: Some values lie beyond `high`.
    """

    low: float
    high: float
    ticks: tuple[float, ...] = ()
    is_cut: bool = False

    def percent(self, value: float) -> float:
        """Position of a value from the low end, in percent, kept inside the axis."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, share)), 2)


def round_ticks(low: float, high: float, *, count: int = 5) -> tuple[float, ...]:
    """About `count` round numbers from low to high."""
    raw = (high - low) / count
    scale = 10 ** math.floor(math.log10(raw))
    step = next(scale * factor for factor in (1, 2, 5, 10) if scale * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return tuple(round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1))


def span_axis(values: Sequence[float], *, least: float) -> Axis:
    """Axis around 0 for effects: holds all values, and at least `least` to each side."""
    low, high = min([-least, *values]), max([least, *values])
    pad = 0.04 * (high - low)
    return Axis(low=low - pad, high=high + pad, ticks=round_ticks(low - pad, high + pad, count=6))


def curve_axis(values: Sequence[float], *, is_share: bool = False) -> Axis:
    """Axis from 0 for a curve, the same in all charts of a metric. A few extreme values are cut off, not the rest."""
    finite = sorted(value for value in values if value is not None and math.isfinite(value))
    if not finite:
        return Axis(low=0.0, high=1.0)
    top, usual = finite[-1], finite[int(0.95 * (len(finite) - 1))]
    is_cut = usual > 0 and top > 5 * usual
    high = 1.3 * usual if is_cut else top
    low = min(0.0, finite[0])
    if is_share:
        return Axis(low=0.0, high=1.0)
    if high <= 0 > low:
        return Axis(low=low, high=0.0)
    if high <= low:
        high = low + 1.0
    # Room above the highest line, where the axis label stands.
    return Axis(low=low, high=round_up(high if is_cut else 1.15 * high), is_cut=is_cut)


def round_up(value: float) -> float:
    """The next number with one or two leading digits."""
    if value <= 0:
        return value
    scale = 10 ** math.floor(math.log10(value))
    return next(
        scale * factor for factor in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if scale * factor >= value * 0.9999
    )


def curve_chart(
    seeds: Sequence[dict[str, Any]],
    axis: Axis,
    *,
    last_step: int,
    label: str,
    reference: float | None = None,
    ceiling: Sequence[dict[str, Any]] = (),
    onsets: Sequence[int] = (),
    departures: Sequence[int] = (),
) -> Markup:
    """Draw every seed as a thin line and, over several, their mean.

    Marked are a reference (dashed, across), the mean over seeds of a ceiling (dotted), the onset of what was found, and
    departures (dashed, upright).
    """
    parts = [_polyline(*mean_curve(ceiling), axis, last_step, "ceiling")] if ceiling else []
    if reference is not None:
        y = _y(reference, axis)
        parts.append(f'<line class="reference" x1="0" x2="{_WIDTH:g}" y1="{y}" y2="{y}"/>')
    for name, marks in (("onset", onsets), ("departure", departures)):
        places = [_x(mark, last_step) for mark in marks]
        parts += [f'<line class="{name}" x1="{x}" x2="{x}" y1="0" y2="{_HEIGHT:g}"/>' for x in places]
    kind = "seed" if len(seeds) > 1 else "mean"
    parts += [_polyline(seed["steps"], seed["values"], axis, last_step, kind) for seed in seeds]
    if len(seeds) > 1:
        steps, means = mean_curve(seeds)
        parts.append(_polyline(steps, means, axis, last_step, "mean"))
    return Markup(
        f'<svg class="curve" role="img" aria-label="{escape(label)}" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" '
        f'preserveAspectRatio="none"><title>{escape(label)}</title>{"".join(parts)}</svg>'
    )


def _x(step: float, last_step: int) -> float:
    return round(_WIDTH * step / max(1, last_step), 2)


def _y(value: float, axis: Axis) -> float:
    return round(_HEIGHT * (1 - axis.percent(value) / 100), 2)


def _polyline(steps: Sequence[float], values: Sequence[Any], axis: Axis, last_step: int, kind: str) -> str:
    """One line; it breaks where a value is missing, and a value alone is a dot."""
    pieces: list[list[str]] = [[]]
    for step, value in zip(steps, values, strict=True):
        if value is None or not math.isfinite(value):
            pieces.append([])
        else:
            pieces[-1].append(f"{_x(step, last_step)},{_y(value, axis)}")
    return "".join(_piece(points, kind) for points in pieces if points)


def _piece(points: list[str], kind: str) -> str:
    """A line, or a dot where there is one point."""
    if len(points) == 1:
        kind, points = f"{kind} end", points * 2
    return f'<polyline class="{kind}" points="{" ".join(points)}"/>'


def mean_curve(seeds: Sequence[dict[str, Any]]) -> tuple[list[int], list[float]]:
    """Mean over the seeds that have a step, only where all still run."""
    by_step: dict[int, list[float]] = {}
    for seed in seeds:
        for step, value in zip(seed["steps"], seed["values"], strict=True):
            if value is not None and math.isfinite(value):
                by_step.setdefault(step, []).append(value)
    steps = [step for step in sorted(by_step) if len(by_step[step]) == len(seeds)]
    return steps, [sum(by_step[step]) / len(seeds) for step in steps]


def path_chart(paths: Sequence[Sequence[tuple[float, float]]], across: Axis, up: Axis, *, label: str) -> Markup:
    """Draw paths in a plane, such as reward against entropy over training; a dot marks where each ends."""
    parts = []
    for index, path in enumerate(paths):
        points = [f"{across.percent(x)},{round(100 - up.percent(y), 2)}" for x, y in path]
        if points:
            parts.append(f'<polyline class="line{index}" points="{" ".join(points)}"/>')
            parts.append(f'<polyline class="line{index} end" points="{points[-1]} {points[-1]}"/>')
    return Markup(
        f'<svg class="curve" role="img" aria-label="{escape(label)}" viewBox="0 0 100 100" '
        f'preserveAspectRatio="none"><title>{escape(label)}</title>{"".join(parts)}</svg>'
    )


def survival_chart(curves: Sequence[dict[str, Any]], last_step: int, *, label: str) -> Markup:
    """Draw Kaplan-Meier curves as steps, from 1 at the start."""
    up, paths = Axis(low=0.0, high=1.0), []
    across = Axis(low=0.0, high=float(max(1, last_step)))
    for curve in curves:
        path, share = [(0.0, 1.0)], 1.0
        for step, after in zip(curve["steps"], curve["shares"], strict=True):
            path += [(step, share), (step, after)]
            share = after
        paths.append([*path, (float(last_step), share)])
    return path_chart(paths, across, up, label=label)


def interval_chart(cell: dict[str, Any], axis: Axis, *, margin: float) -> Markup:
    """One row of a forest plot: the margin, zero, the bootstrap interval, the deciding interval, seeds and the mean.

    Of a cell that is owed only the seeds so far, which decide nothing.
    """
    p = axis.percent
    parts = [
        f'<rect class="margin" x="{p(-margin)}%" width="{round(p(margin) - p(-margin), 2)}%" y="0" height="100%"/>',
        *(f'<line class="grid" x1="{p(tick)}%" x2="{p(tick)}%" y1="0" y2="100%"/>' for tick in axis.ticks),
        f'<line class="zero" x1="{p(0)}%" x2="{p(0)}%" y1="0" y2="100%"/>',
    ]
    label = f"{cell['id']}: not evaluated"
    if cell["verdict"] == "owed":
        label = f"{cell['id']}: {'not finished' if cell['seed_effects'] else 'not evaluated yet'}"
        parts += _seed_ticks(cell, axis)
    elif cell["effect"] is not None:
        label = f"{cell['id']}: {cell['effect']:+.1f} points"
        parts += _interval_parts(cell, axis)
    return Markup(
        f'<svg class="forest {cell["verdict"]}" role="img" aria-label="{escape(label)}" width="100%" height="30">'
        f"<title>{escape(label)}</title>{''.join(parts)}</svg>"
    )


def _interval_parts(cell: dict[str, Any], axis: Axis) -> list[str]:
    p, parts = axis.percent, []
    if cell["bootstrap_low"] is not None:
        low, high = p(cell["bootstrap_low"]), p(cell["bootstrap_high"])
        width = max(0.4, round(high - low, 2))
        parts.append(f'<rect class="bootstrap" x="{low}%" width="{width}%" y="10" height="10" rx="2"/>')
    if cell["low"] is not None:
        parts.append(f'<line class="interval" x1="{p(cell["low"])}%" x2="{p(cell["high"])}%" y1="15" y2="15"/>')
    if len(cell["seed_effects"]) > 1:
        parts += _seed_ticks(cell, axis)
    parts.append(f'<circle class="point" cx="{p(cell["effect"])}%" cy="15" r="4.5"/>')
    return parts


def _seed_ticks(cell: dict[str, Any], axis: Axis) -> list[str]:
    places = [axis.percent(value) for value in cell["seed_effects"].values()]
    return [f'<line class="tick" x1="{place}%" x2="{place}%" y1="22" y2="28"/>' for place in places]


def onset_chart(steps: Sequence[int], last_step: int, *, label: str, fall: Sequence[int] = ()) -> Markup:
    """One row of the onset timeline: a dot a seed where the signal left its band, a bar where the reward fell."""
    axis = Axis(low=0.0, high=float(max(1, last_step)))
    falls = "".join(
        f'<line class="onset" x1="{axis.percent(step)}%" x2="{axis.percent(step)}%" y1="0" y2="100%"/>' for step in fall
    )
    dots = "".join(f'<circle class="point" cx="{axis.percent(step)}%" cy="9" r="4"/>' for step in steps)
    return Markup(
        f'<svg class="timeline" role="img" aria-label="{escape(label)}" width="100%" height="18">'
        f'<title>{escape(label)}</title><line class="grid" x1="0" x2="100%" y1="9" y2="9"/>{falls}{dots}</svg>'
    )


def bar_chart(parts: Sequence[tuple[str, float]], *, label: str) -> Markup:
    """One stacked horizontal bar; classes part0, part1, ... give the colours."""
    total = sum(value for _, value in parts) or 1.0
    rects, x = [], 0.0
    for index, (name, value) in enumerate(parts):
        width = 100 * value / total
        rects.append(
            f'<rect class="part{index}" x="{x:.2f}%" width="{width:.2f}%" y="0" height="100%">'
            f"<title>{escape(name)}</title></rect>"
        )
        x += width
    return Markup(
        f'<svg class="bar" role="img" aria-label="{escape(label)}" width="100%" height="22">'
        f"<title>{escape(label)}</title>{''.join(rects)}</svg>"
    )
