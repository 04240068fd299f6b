"""What moved first: the step at which each signal of a run leaves its healthy band for good.

The band is the signal's own first window, widened by its noise and by a relative tolerance. A departure is an
observation, not an alarm: entropy falls in a healthy run too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from experiments.analysis.collapse.series import (
    MIN_TREND_STEPS,
    Series,
    first_streak,
    noise_of,
    read_series,
    trailing_mean,
    trailing_median,
)

Direction = Literal["up", "down", "either"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A watched metric.

    Attributes:
        bad: Direction in which it leaves its band.
        least: Smallest change that counts, in its unit.
        relative: Smallest change that counts, as a share of its level.
        has_spikes: Single steps lie far out in healthy runs, so that medians are read instead of means.
    """

    name: str
    bad: Direction
    least: float
    relative: float = 0.4
    has_spikes: bool = False


# What a run is judged by; the rest may be a cause.
OUTCOMES = ("reward", "success")
SIGNALS: tuple[Signal, ...] = (
    Signal(name="reward", bad="down", least=0.05),
    Signal(name="success", bad="down", least=0.05),
    Signal(name="entropy", bad="down", least=0.01),
    # Clipping higher doubles it in runs that learn.
    Signal(name="entropy", bad="up", least=0.3, relative=1.0),
    Signal(name="unique_completions", bad="down", least=0.0),
    Signal(name="frac_reward_zero_std", bad="up", least=0.15),
    Signal(name="kl", bad="up", least=0.05),
    Signal(name="ratio_spread", bad="up", least=0.05),
    Signal(name="clip_ratio/region_mean", bad="up", least=0.05),
    Signal(name="ess", bad="down", least=0.1, relative=0.2),
    Signal(name="grad_norm", bad="up", least=0.0, relative=2.0, has_spikes=True),
    Signal(name="parse_valid", bad="down", least=0.1, relative=0.15),
    Signal(name="completion_length", bad="either", least=2.0, relative=0.25),
    Signal(name="eos_share", bad="down", least=0.1, relative=0.15),
    Signal(name="cut_share", bad="up", least=0.1, relative=0.15),
    Signal(name="masks_left", bad="up", least=0.02),
    Signal(name="fault_share", bad="up", least=0.05),
    Signal(name="judge_fault_share", bad="up", least=0.05),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """A signal left its band at `step`: its level before, and over the window from there on."""

    signal: str
    step: int
    before: float
    after: float

    @property
    def is_rise(self) -> bool:
        """Whether the signal left its band upwards."""
        return self.after > self.before


def departure(series: Series, signal: Signal, window: int) -> Departure | None:
    """Find where a signal leaves the band of its first window and stays out for a window.

    Reward and success are expected to rise, so they are measured from their running peak instead.
    """
    series = series.finite()
    if len(series) < max(MIN_TREND_STEPS, 2 * window):
        return None
    size = max(3, window // 2)
    means = (trailing_median if signal.has_spikes else trailing_mean)(series.values, size)
    first = float(np.median(series.values[:window]))
    rises = signal.name in OUTCOMES
    base = np.maximum.accumulate(means) if rises else np.full(len(means), first)
    margin = np.maximum(signal.least, signal.relative * np.abs(base)) + 3 * noise_of(series.values) / np.sqrt(size)
    change = means - base
    is_out = {"up": change > margin, "down": -change > margin, "either": np.abs(change) > margin}[signal.bad]
    start = first_streak(is_out, size)
    if start is None:
        return None
    # The trailing mean crosses late: the departure is the first value of its window beyond the margin.
    values, low = series.values[start : start + size], base[start]
    beyond = np.flatnonzero(np.abs(values - low) > margin[start])
    index = start + (int(beyond[0]) if len(beyond) else size - 1)
    return Departure(
        signal=signal.name,
        step=int(series.steps[index]),
        before=float(low),
        after=float(series.values[index : index + window].mean()),
    )


def near_departures(
    metrics: Sequence[Mapping[str, Any]], window: int, *, since: int, until: int
) -> tuple[Departure, ...]:
    """Departures of signals other than outcomes, measured from their level at `since`, up to `until`."""
    rows = [row for index, row in enumerate(metrics) if since <= row.get("step", index) <= until]
    return tuple(item for item in departures(rows, window) if item.signal not in OUTCOMES)


def departures(metrics: Sequence[Mapping[str, Any]], window: int) -> tuple[Departure, ...]:
    """All departures of a run (metrics under uniform names), earliest first; of equal ones, outcomes last."""
    found = [departure(read_series(metrics, signal.name), signal, window) for signal in SIGNALS]
    kept = [item for item in found if item is not None]
    return tuple(sorted(kept, key=lambda item: (item.step, item.signal in OUTCOMES)))
