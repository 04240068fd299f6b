"""Detectors: each a pure function from a metric's series to an alarm or None.

Drawdown confirms a collapse; the cumulative sum (Page 1954, with robust scale) warns earlier and cheaper; the others
watch for one thing each. None is fitted to a run: thresholds are constants with their reasons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from experiments.analysis.collapse.series import (
    MIN_TREND_STEPS,
    Series,
    first_streak,
    noise_of,
    stride_of,
    trailing_mean,
)

# Of the alarms that may end a run. It is raised with what raises them, here or in `rewards` and `gaming`: a run that
# stops at another step is another run.
VERSION = 3

Severity = Literal["error", "collapse", "warning"]

# An exact method gives |ratio - 1| below 1e-5 in float32; unshared masks give 0.1 and more.
RATIO_TOLERANCE = 1e-3
MAX_FAULT_SHARE = 0.05
# Shares of log-ratios beyond 1, averaged over the inner steps. Healthy runs of the toolkit stay under .02.
MAX_FAR_SHARE = 0.1
# In noise units: plateaus cross this limit in under 5 % of runs (tests simulate it).
_CUSUM_LIMIT = 10.0
_NON_FINITE_STREAK = 2
# Exploration may double or triple the entropy of a run that learns; text without sense has several times as much, and
# at least this many nats a token more.
_EXPLODED, _LEAST_EXPLOSION = 3.0, 0.5
# Where most completions are cut, most rewards judge what the cap left of them.
MAX_CUT_SHARE = 0.7
# Signals that may never be without a number, not even at one step.
_DECISIVE = ("reward", "loss")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something a detector found.

    Attributes:
        severity: `error` is a fault of code, machine or environment; `collapse`: the policy lost what it had;
            `warning`: worth a look.
        onset: Step at which it began.
        raised: Step at which it was certain.
    """

    detector: str
    signal: str
    severity: Severity
    onset: int
    raised: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardScale:
    """Size of single rewards, where it is known.

    Attributes:
        spread: Their standard deviation, or 0.
        lowest: The lowest of all.
    """

    spread: float = 0.0
    lowest: float | None = None


NO_SCALE = RewardScale()


def alarm_at(series: Series, detector: str, severity: Severity, message: str, *, onset: int, raised: int) -> Alarm:
    """Make an alarm on a series; onset and raised are positions in it."""
    begin, end = int(series.steps[onset]), int(series.steps[raised])
    return Alarm(detector=detector, signal=series.name, severity=severity, onset=begin, raised=end, message=message)


def can_show_trend(series: Series, window: int) -> bool:
    """Whether a series is long enough to tell a trend from noise."""
    return len(series) >= max(MIN_TREND_STEPS, 2 * window)


def drawdown(series: Series, window: int, *, scale: RewardScale = NO_SCALE) -> Alarm | None:
    """Confirm a collapse: the trailing mean loses half of what it had at its peak, and stays there for a whole window.

    What it had is its distance from zero, or all that it gained on the way to its peak, whichever is more. The fall
    must also exceed five standard errors of the mean, so that a noisy signal near zero cannot collapse. Where values
    lie below zero, zero says nothing about size: `_held_below_zero`.
    """
    series = series.finite()
    if not can_show_trend(series, window):
        return None
    means = trailing_mean(series.values, window)
    peaks = np.maximum.accumulate(means)
    held = np.maximum(np.abs(peaks), _gains(means))
    noise = noise_of(series.values) / np.sqrt(window)
    if means.min() < 0:
        held = _held_below_zero(peaks, held, scale, noise_of(series.values))
    start = first_streak((peaks - means > held / 2) & (peaks - means > 5 * noise), window)
    if start is None:
        return None
    raised = start + 2 * window - 2
    # The fall began after the last value that still stood at the peak's level, give or take the noise.
    at_peak = np.flatnonzero(series.values[: start + window] >= peaks[start] - noise_of(series.values))
    onset = min(int(at_peak[-1]) + 1 if len(at_peak) else start, raised)
    levels = f"{peaks[start]:.3g} to {means[start + window - 1]:.3g}"
    what = "stayed under half of its peak" if means.min() >= 0 else "lost over half of what it had"
    message = f"{series.name} fell from {levels} and {what} for {window * stride_of(series.steps)} steps"
    return alarm_at(series, "drawdown", "collapse", message, onset=onset, raised=raised)


def _held_below_zero(peaks: np.ndarray, held: np.ndarray, scale: RewardScale, noise: float) -> np.ndarray:
    """What a signal had that knows values below zero: its height above the lowest reward, where that is known.

    Elsewhere a fall must also exceed half of the spread of single rewards (a medium effect, Cohen 1988) and four times
    the noise of a step.
    """
    if scale.lowest is not None:
        return np.maximum(peaks - scale.lowest, 0.0)
    return np.maximum(held, max(scale.spread, 8 * noise))


def _gains(means: np.ndarray) -> np.ndarray:
    """Height of the running peak above the lowest value on the way to it, at each place."""
    lowest, peak, gains = float(means[0]), float(means[0]), np.zeros(len(means))
    before = lowest
    for index, value in enumerate(means):
        lowest = min(lowest, float(value))
        if value > peak:
            peak, before = float(value), lowest
        gains[index] = peak - before
    return gains


def cusum(series: Series, window: int) -> Alarm | None:
    """Warn of a fall: the summed shortfall under the running peak, in noise units, passes a limit."""
    series = series.finite()
    if not can_show_trend(series, window):
        return None
    noise = noise_of(series.values)
    # The highest of many means lies above the true level, by more the shorter the window.
    slack = 0.5 + 2 / np.sqrt(window)
    peaks = np.maximum.accumulate(trailing_mean(series.values, window))
    if noise == 0 or peaks[-1] == 0:
        return None
    total, start = 0.0, 0
    for index in range(window, len(series)):
        step = (peaks[index - window] - series.values[index]) / noise - slack
        start = index if total == 0 else start
        total = max(0.0, total + step)
        if total > _CUSUM_LIMIT:
            message = f"{series.name} runs below its best level by more than noise explains"
            return alarm_at(series, "cusum", "warning", message, onset=start, raised=index)
    return None


def non_finite(series: Series, *, is_count: bool = False, is_over: bool = True) -> Alarm | None:
    """Find a value that is not finite, twice running; reward and loss at the last step, too.

    A single step with a non-finite gradient is skipped by the trainer and does not count; a streak that ended is a
    warning. A run that is over ended at its last row: one value there is a failure, unless the run got over one before.

    Args:
        is_count: Whether the series counts non-finite values, so that anything above 0 is one.
        is_over: False for a run that still trains, whose last row is not its end.
    """
    is_bad = ~np.isfinite(series.values) | (is_count & (series.values > 0))
    what = "is above 0" if is_count else "is not finite"
    good = np.flatnonzero(~is_bad)
    lasting = int(good[-1]) + 1 if len(good) else 0
    is_last_word = is_over and not is_bad[:lasting].any()
    is_decisive = series.name in _DECISIVE or len(is_bad) == 1 or is_last_word
    if len(is_bad) - lasting >= (1 if is_decisive else _NON_FINITE_STREAK):
        message = f"{series.name} {what} from step {series.steps[lasting]} on"
        return alarm_at(series, "non_finite", "error", message, onset=lasting, raised=lasting)
    start = first_streak(is_bad, _NON_FINITE_STREAK)
    if start is None:
        return None
    if is_bad[start:].mean() > 0.5:
        message = f"{series.name} {what} at most steps from step {series.steps[start]} on"
        return alarm_at(series, "non_finite", "error", message, onset=start, raised=start)
    message = f"{series.name} {what} at step {series.steps[start]} and the next, and was finite again later"
    return alarm_at(series, "non_finite_for_a_while", "warning", message, onset=start, raised=start)


def off_policy_at_start(series: Series, *, tolerance: float = RATIO_TOLERANCE) -> Alarm | None:
    """Find a ratio other than 1 before the first update of a step: an error of the estimator, never of learning."""
    series = series.finite()
    bad = np.flatnonzero(series.values > tolerance)
    if not len(bad):
        return None
    first = int(bad[0])
    size = f"{series.values[first]:.3g} before any update (up to {series.values.max():.3g})"
    message = f"{series.name} is {size}; on policy it must be 0"
    return alarm_at(series, "off_policy_at_start", "error", message, onset=first, raised=first)


def far_off_policy(series: Series, *, limit: float = MAX_FAR_SHARE) -> Alarm | None:
    """Find a step whose inner updates moved more than this share of the entries by more than a factor of e.

    It needs no healthy steps before it: on a run that breaks at once there are none.
    """
    series = series.finite()
    bad = np.flatnonzero(series.values > limit)
    if not len(bad):
        return None
    first = int(bad[0])
    message = (
        f"{series.values[first]:.0%} of the importance ratios are beyond a factor of e at step {series.steps[first]}"
    )
    return alarm_at(series, "far_off_policy", "warning", message, onset=first, raised=first)


def surge(series: Series, fall: int, within: int, *, factor: float = 2.0, least: float = 0.05) -> Alarm | None:
    """Find far ratios that jump right before a fall: over `factor` times all that was before, within so many steps.

    Args:
        fall: Step at which reward began to fall. An update that goes much too far ends a run in one step: what it does
            to the ratios is seen once, in the step that does it, too briefly for a trend.
        least: Share below which nothing counts.
    """
    series = series.finite()
    early = series.values[series.steps < fall - within]
    if not len(early):
        return None
    is_near = (series.steps >= fall - within) & (series.steps <= fall)
    bad = np.flatnonzero(is_near & (series.values >= max(least, factor * early.max())))
    if not len(bad):
        return None
    first = int(bad[0])
    message = (
        f"{series.values[first]:.0%} of the importance ratios are beyond a factor of e at step {series.steps[first]}, "
        f"at most {early.max():.0%} in the steps before"
    )
    return alarm_at(series, "surge", "warning", message, onset=first, raised=first)


def faults(series: Series, window: int, *, limit: float = MAX_FAULT_SHARE, is_over: bool = True) -> Alarm | None:
    """Find a share of lost rollouts over the limit, averaged over a window (or a shorter run).

    Args:
        series: Shares lost to the environment, or for want of a judge's answer (`judge_fault_share`).
        is_over: False while the run goes on, when a run shorter than a window says nothing yet.
    """
    series = series.finite()
    if not len(series) or (not is_over and len(series) < window):
        return None
    size = min(window, len(series))
    means = trailing_mean(series.values, size)
    over = np.flatnonzero(means > limit)
    if not len(over):
        return None
    first, raised = int(over[0]), int(over[0]) + size - 1
    onset = first + int(np.argmax(series.values[first : raised + 1] > limit))
    span = size * stride_of(series.steps)
    cause = "since the judge gave no answer" if series.name == "judge_fault_share" else "to the environment"
    message = f"{means.max():.1%} of rollouts lost {cause} over {span} steps (limit {limit:.0%})"
    return alarm_at(series, "faults", "error", message, onset=onset, raised=raised)


def entropy_explosion(entropy: Series, window: int) -> Alarm | None:
    """Find entropy that rises to several times its level at the start and stays there."""
    entropy = entropy.finite()
    if not can_show_trend(entropy, window):
        return None
    first = float(np.median(entropy.values[:window]))
    limit = max(_EXPLODED * first, first + _LEAST_EXPLOSION)
    means = trailing_mean(entropy.values, window)
    start = first_streak(means > limit, window)
    if start is None or means[-1] <= limit:
        return None
    # The rise began after the last value that still was nearer to the start than to the limit.
    calm = np.flatnonzero(entropy.values[: start + window] < (first + limit) / 2)
    onset = int(calm[-1]) + 1 if len(calm) else 0
    message = f"{entropy.name} rose from {first:.3g} to {means[-1]:.3g}"
    return alarm_at(entropy, "entropy_explosion", "warning", message, onset=onset, raised=start + 2 * window - 2)


def truncation(cut_share: Series, window: int) -> Alarm | None:
    """Find most completions cut off at the cap of their length, over the last window."""
    cut_share = cut_share.finite()
    if not can_show_trend(cut_share, window):
        return None
    means = trailing_mean(cut_share.values, window)
    below = np.flatnonzero(means <= MAX_CUT_SHARE)
    first = int(below[-1]) + 1 if len(below) else 0
    if first == len(means):
        return None
    message = f"{means[-1]:.0%} of completions are cut off at the cap, at first {means[0]:.0%}"
    onset = first + window - 1 if first else 0
    return alarm_at(cut_share, "truncation", "warning", message, onset=onset, raised=first + window - 1)
