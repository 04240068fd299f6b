"""Detectors: each a pure function from a metric's series to an alarm or None.

Drawdown confirms a collapse; the cumulative sum (Page 1954, with robust scale) warns earlier and cheaper; the others
watch for one thing each. None is fitted to a run: thresholds are constants with their reasons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from experiments.collapse.series import (
    MIN_TREND_STEPS,
    Series,
    first_streak,
    noise_of,
    trailing_mean,
)

Severity = Literal["error", "collapse", "warning"]

# An exact method gives |ratio - 1| below 1e-5 in float32; unshared masks give 0.1 and more.
RATIO_TOLERANCE = 1e-3
MAX_FAULT_SHARE = 0.05
# Shares of log-ratios beyond 1, averaged over the inner steps. Healthy runs of the toolkit stay under .02.
MAX_FAR_SHARE = 0.1
# In noise units: plateaus cross this limit in under 5 % of runs (tests simulate it).
_CUSUM_LIMIT = 10.0
_NON_FINITE_STREAK = 2
# Signals that may never be without a number, not even at one step.
_DECISIVE = ("reward", "loss")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something a detector found. onset: step at which it began. raised: step at which it was certain enough to say so.

    error: a fault of code, machine or environment. collapse: the policy lost what it had. warning: look here.
    """

    detector: str
    signal: str
    severity: Severity
    onset: int
    raised: int
    message: str


def _alarm(series: Series, detector: str, severity: Severity, message: str, *, onset: int, raised: int) -> Alarm:
    """An alarm on a series; onset and raised are positions in it."""
    begin, end = int(series.steps[onset]), int(series.steps[raised])
    return Alarm(detector=detector, signal=series.name, severity=severity, onset=begin, raised=end, message=message)


def _can_show_trend(series: Series, window: int) -> bool:
    return len(series) >= max(MIN_TREND_STEPS, 2 * window)


def drawdown(series: Series, window: int) -> Alarm | None:
    """Confirm a collapse: the trailing mean stays under half of its running peak for a whole window.

    The fall must also exceed five standard errors of the mean, so that a noisy signal near zero cannot collapse.
    """
    series = series.finite()
    if not _can_show_trend(series, window):
        return None
    means = trailing_mean(series.values, window)
    floor = min(0.0, float(means.min()))
    peaks = np.maximum.accumulate(means) - floor
    fall = peaks - (means - floor)
    noise = noise_of(series.values) / np.sqrt(window)
    start = first_streak((fall > peaks / 2) & (fall > 5 * noise), window)
    if start is None:
        return None
    raised = start + 2 * window - 2
    # The fall began after the last value that still stood at the peak's level, give or take the noise.
    at_peak = np.flatnonzero(series.values[: start + window] >= peaks[start] + floor - noise_of(series.values))
    onset = min(int(at_peak[-1]) + 1 if len(at_peak) else start, raised)
    levels = f"{peaks[start] + floor:.3g} to {means[start + window - 1]:.3g}"
    message = f"{series.name} fell from {levels} and stayed under half of its peak for {window} steps"
    return _alarm(series, "drawdown", "collapse", message, onset=onset, raised=raised)


def cusum(series: Series, window: int) -> Alarm | None:
    """Warn of a fall: the summed shortfall under the running peak, in noise units, passes a limit."""
    series = series.finite()
    if not _can_show_trend(series, window):
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
            return _alarm(series, "cusum", "warning", message, onset=start, raised=index)
    return None


def non_finite(series: Series, *, is_count: bool = False) -> Alarm | None:
    """Find a value that is no number, or infinite, twice running; reward and loss at the last step, too.

    One step whose gradient is not finite is skipped by the trainer, and no failure; a streak that ended is a warning.
    is_count: the series itself counts non-finite values, so that anything above 0 is one.
    """
    is_bad = ~np.isfinite(series.values) | (is_count & (series.values > 0))
    what = "is above 0" if is_count else "is not finite"
    good = np.flatnonzero(~is_bad)
    lasting = int(good[-1]) + 1 if len(good) else 0
    is_decisive = series.name in _DECISIVE or len(is_bad) == 1
    if len(is_bad) - lasting >= (1 if is_decisive else _NON_FINITE_STREAK):
        message = f"{series.name} {what} from step {series.steps[lasting]} on"
        return _alarm(series, "non_finite", "error", message, onset=lasting, raised=lasting)
    start = first_streak(is_bad, _NON_FINITE_STREAK)
    if start is None:
        return None
    if is_bad[start:].mean() > 0.5:
        message = f"{series.name} {what} at most steps from step {series.steps[start]} on"
        return _alarm(series, "non_finite", "error", message, onset=start, raised=start)
    message = f"{series.name} {what} at step {series.steps[start]} and the next, and was finite again later"
    return _alarm(series, "non_finite_for_a_while", "warning", message, onset=start, raised=start)


def off_policy_at_start(series: Series, *, tolerance: float = RATIO_TOLERANCE) -> Alarm | None:
    """Find a ratio other than 1 before the first update of a step: an error of the estimator, never of learning."""
    series = series.finite()
    bad = np.flatnonzero(series.values > tolerance)
    if not len(bad):
        return None
    first = int(bad[0])
    size = f"{series.values[first]:.3g} before any update (up to {series.values.max():.3g})"
    message = f"{series.name} is {size}; on policy it must be 0"
    return _alarm(series, "off_policy_at_start", "error", message, onset=first, raised=first)


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
    return _alarm(series, "far_off_policy", "warning", message, onset=first, raised=first)


def surge(series: Series, fall: int, within: int, *, factor: float = 2.0, least: float = 0.05) -> Alarm | None:
    """Find far ratios that jump right before a fall: over `factor` times all that was before, within so many steps.

    fall: step at which reward began to fall. An update that goes much too far ends a run in one step: what it does to
    the ratios is seen once, in the step that does it, too briefly for a trend. least: share below which nothing counts.
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
    return _alarm(series, "surge", "warning", message, onset=first, raised=first)


def faults(series: Series, window: int, *, limit: float = MAX_FAULT_SHARE, is_over: bool = True) -> Alarm | None:
    """Find a share of rollouts lost to the environment over the limit, averaged over a window (or a shorter run).

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
    message = f"{means.max():.1%} of rollouts lost to the environment over {size} steps (limit {limit:.0%})"
    return _alarm(series, "faults", "error", message, onset=onset, raised=raised)


def dead_run(reward: Series, no_spread: Series, window: int) -> Alarm | None:
    """Find a run that never had anything to learn from: no group with different rewards and none rewarded."""
    if min(len(reward), len(no_spread)) < max(MIN_TREND_STEPS, window):
        return None
    if np.nanmean(no_spread.values) < 0.9 or np.nanmax(trailing_mean(reward.values, window)) > 0.05:
        return None
    levels = f"{np.nanmean(no_spread.values):.0%} of groups have no spread in reward"
    message = f"{levels}, mean reward {np.nanmean(reward.values):.3f}: nothing to learn from, from the start"
    return _alarm(no_spread, "dead_run", "warning", message, onset=0, raised=window - 1)


def saturation(all_good: Series, window: int) -> Alarm | None:
    """Find success in every group: nothing is left to learn on these tasks."""
    all_good = all_good.finite()
    if len(all_good) < max(MIN_TREND_STEPS, window):
        return None
    start = first_streak(trailing_mean(all_good.values, window) > 0.9, 1)
    if start is None or trailing_mean(all_good.values, window)[-1] <= 0.9:
        return None
    full = start + window - 1
    message = f"all rollouts succeed in over 90 % of groups from step {all_good.steps[full]} on"
    return _alarm(all_good, "saturation", "warning", message, onset=full, raised=full)


def no_exploration(no_spread: Series, unique: Series, window: int) -> Alarm | None:
    """Find a run that ends without different completions: groups without spread, few unique ones in each."""
    no_spread, unique = no_spread.finite(), unique.finite()
    if not (_can_show_trend(no_spread, window) and _can_show_trend(unique, window)):
        return None
    spread, kinds = trailing_mean(no_spread.values, window), trailing_mean(unique.values, window)
    if spread[-1] < 0.95 or kinds[-1] > 0.5 * kinds[0]:
        return None
    full = (first_streak(spread >= 0.95, 1) or 0) + window - 1
    levels = f"unique completions fell from {kinds[0]:.3g} to {kinds[-1]:.3g}"
    message = f"no group has different rewards from step {no_spread.steps[full]} on, and {levels}"
    return _alarm(unique, "no_exploration", "collapse", message, onset=full, raised=full)
