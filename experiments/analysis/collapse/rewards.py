"""Detectors of what the mean reward does not show: nothing to learn from, a lost part of it, an evaluation that falls.

A method that compares the completions of a group learns nothing from a group in which all have the same reward: from
the start (dead), at the top (saturated), or elsewhere (starved). How many groups are like that is logged as a share
(TRL, d1, ours), or follows from what else is logged about the spread. A reward may also stand or rise while what it
was meant to stand for is lost (Goodhart's law; Gao et al., arXiv 2210.10760, of reward models)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.analysis.collapse.detectors import Alarm, RewardScale, alarm_at, can_show_trend, drawdown
from experiments.analysis.collapse.series import (
    MIN_TREND_STEPS,
    Series,
    first_streak,
    noise_of,
    read_series,
    trailing_mean,
)

# Share of groups without spread from which on nothing is learned: one group in ten still teaches something.
MAX_WITHOUT_SPREAD = 0.9
# Share of groups that all succeed up to which most of the tasks are not solved.
_MOST_GOOD = 0.5
# Chance of a stretch of steps without spread, given how often such steps came before.
_CHANCE = 0.01
# A mean of equal numbers in single precision is off by this much of them.
_EQUAL = 1e-6


def without_spread(rows: Sequence[Mapping[str, Any]]) -> Series:
    """Share of groups without different rewards at each step: as logged, or else as it follows from what is.

    - Advantages that are all 0 (verl): no group has spread.
    - `reward_std`, the mean over groups: in proportion to the share of groups that have any, as for equal groups.
    - Lowest, highest and mean reward of a batch (verl): where rewards are either, p of them the higher, a group of
      eight is alike with probability p^8 + (1-p)^8, near either end 1 - 8p(1-p). By Bhatia and Davis (2000) no other
      rewards with this mean have more variance.
    The series bears the name of what it was taken from, and is empty where none of these is logged.
    """
    logged = read_series(rows, "frac_reward_zero_std")
    if len(logged):
        return logged
    low, high = (read_series(rows, f"critic/advantages/{end}") for end in ("min", "max"))
    if len(low) and len(low) == len(high):
        values = ((low.values == 0) & (high.values == 0)).astype(float)
        if values.any():
            return Series(name="critic/advantages", steps=low.steps, values=values)
    spread = read_series(rows, "reward_std").finite()
    if len(spread):
        return _from_deviation(spread, rows)
    return _from_range(rows)


def _from_deviation(spread: Series, rows: Sequence[Mapping[str, Any]]) -> Series:
    means = trailing_mean(spread.values, min(5, len(spread)))
    rewards = read_series(rows, "reward").finite().values
    least = _EQUAL * max(1.0, float(np.abs(rewards).max()) if len(rewards) else 1.0)
    values = 1 - np.minimum(1.0, spread.values / max(means.max(), least))
    return Series(name=spread.name, steps=spread.steps, values=np.where(spread.values <= least, 1.0, values))


def _from_range(rows: Sequence[Mapping[str, Any]]) -> Series:
    low, high, mean = (read_series(rows, f"critic/score/{part}") for part in ("min", "max", "mean"))
    if not len(mean) or not len(low) == len(high) == len(mean):
        return Series(name="frac_reward_zero_std", steps=np.empty(0, dtype=int), values=np.empty(0))
    bottom, top = np.nanmin(low.values), np.nanmax(high.values)
    if not top > bottom:
        return Series(name="critic/score", steps=mean.steps, values=np.ones(len(mean)))
    values = 1 - 8 * (top - mean.values) * (mean.values - bottom) / (top - bottom) ** 2
    return Series(name="critic/score", steps=mean.steps, values=np.clip(values, 0.0, 1.0))


def scale_of(rows: Sequence[Mapping[str, Any]]) -> RewardScale:
    """Size of single rewards: their deviation in a group (TRL), the lowest of all batches (verl)."""
    spread, low = (read_series(rows, name).finite().values for name in ("reward_std", "critic/score/min"))
    return RewardScale(
        # The upper quartile: groups lose their spread where a run ends badly.
        spread=float(np.quantile(spread, 0.75)) if len(spread) else 0.0,
        lowest=float(low.min()) if len(low) else None,
    )


def dead_run(reward: Series, no_spread: Series, window: int) -> Alarm | None:
    """Find a run that never had anything to learn from: no group with different rewards, and no rise, from the start.

    The height of the reward does not matter. Where no spread is known, a reward that is the same at every step counts.
    """
    reward, no_spread = reward.finite(), no_spread.finite()
    if len(reward) < max(MIN_TREND_STEPS, window):
        return None
    if len(no_spread):
        share = float(no_spread.values.mean())
        if len(no_spread) < MIN_TREND_STEPS or share < MAX_WITHOUT_SPREAD or rise(reward, window) > 0:
            return None
        if trailing_mean(no_spread.values, window)[0] < MAX_WITHOUT_SPREAD:
            return None
        levels = f"{share:.0%} of groups have no spread in reward"
    elif is_constant(reward):
        levels = "the reward is the same at every step"
    else:
        return None
    message = f"{levels}, mean reward {reward.values.mean():.3f}: nothing to learn from, from the start"
    return alarm_at(no_spread if len(no_spread) else reward, "dead_run", "warning", message, onset=0, raised=window - 1)


def is_constant(reward: Series) -> bool:
    """Whether a reward is the same at every step."""
    values = reward.finite().values
    return len(values) > 1 and bool(np.ptp(values) <= _EQUAL * np.abs(values).max())


def rise(reward: Series, window: int) -> float:
    """How much the mean of the last window lies above that of the first; 0 where noise explains it.

    Three standard errors of the difference, so that a run without a trend rises in one of seven hundred cases.
    """
    means = trailing_mean(reward.values, min(window, len(reward)))
    error = noise_of(reward.values) * np.sqrt(2 / min(window, len(reward)))
    gain = float(means[-1] - means[0])
    return gain if gain > max(3 * error, _EQUAL * float(np.abs(means).max())) else 0.0


def stands_at_peak(reward: Series, window: int) -> bool:
    """Whether the last window's mean is the highest of the run, but for noise or a tenth of what was gained."""
    means = trailing_mean(reward.values, window)
    lost = float(means.max() - means[-1])
    return lost <= max(3 * noise_of(reward.values) / np.sqrt(window), 0.1 * float(means.max() - means.min()))


def is_at_its_best(series: Series, window: int) -> bool:
    """Whether a reward or success rose, and stands at its peak."""
    series = series.finite()
    return len(series) >= window and rise(series, window) > 0 and stands_at_peak(series, window)


def success_everywhere(all_good: Series, window: int) -> Alarm | None:
    """Find success in every group: nothing is left to learn on these tasks."""
    all_good = all_good.finite()
    if len(all_good) < max(MIN_TREND_STEPS, window):
        return None
    start = first_streak(trailing_mean(all_good.values, window) > MAX_WITHOUT_SPREAD, 1)
    if start is None or trailing_mean(all_good.values, window)[-1] <= MAX_WITHOUT_SPREAD:
        return None
    full = start + window - 1
    message = f"all rollouts succeed in over 90 % of groups from step {all_good.steps[full]} on"
    return alarm_at(all_good, "saturation", "warning", message, onset=full, raised=full)


def exhausted(reward: Series, no_spread: Series, window: int) -> Alarm | None:
    """Find a run whose groups lost their spread for good: at the top of a reward that rose (saturation), or elsewhere.

    Elsewhere is starvation: nothing is learned any more, and the tasks are not solved. A share that was as high from
    the start is left alone here: such a run is dead, or learns from the few groups that it has.
    """
    reward, no_spread = reward.finite(), no_spread.finite()
    if not (can_show_trend(reward, window) and can_show_trend(no_spread, window)):
        return None
    means = trailing_mean(no_spread.values, window)
    inside = np.flatnonzero(means < MAX_WITHOUT_SPREAD)
    if not len(inside) or inside[-1] == len(means) - 1:
        return None
    full = int(inside[-1]) + window
    since = f"{means[-1]:.0%} of groups have no spread in reward, from step {no_spread.steps[full]} on"
    level = float(trailing_mean(reward.values, window)[-1])
    if is_at_its_best(reward, window):
        message = f"{since}, with the reward at its peak, {level:.3g}"
        return alarm_at(no_spread, "saturation", "warning", message, onset=full, raised=full)
    message = f"{since}, with the reward at {level:.3g}"
    return alarm_at(no_spread, "starvation", "warning", message, onset=full, raised=full)


def starved(no_spread: Series, all_good: Series, window: int) -> Alarm | None:
    """Find groups that lost their spread for good where it is logged whether they succeed: alive once, then nothing.

    From some step to the last no group has different rewards, for a window or more, and most groups do not succeed
    throughout. Whether a group has spread is counted and not estimated, so that runs too short for a trend tell it,
    and so does one whose reward stands at its peak, which then lies below the ceiling. The stretch must be longer than
    steps without spread that come and go would make it.
    """
    no_spread, all_good = no_spread.finite(), all_good.finite()
    if len(all_good) < window or all_good.values[-window:].mean() > _MOST_GOOD:
        return None
    alive = np.flatnonzero(no_spread.values < 1)
    full = int(alive[-1]) + 1 if len(alive) else 0
    num_flat = len(no_spread) - full
    if not full or num_flat < window:
        return None
    usual = (1 + np.count_nonzero(no_spread.values[:full] >= 1)) / (1 + full)
    if usual**num_flat > _CHANCE:
        return None
    message = (
        f"no group has spread in reward from step {no_spread.steps[full]} on, and all rollouts succeed in "
        f"{all_good.values[-window:].mean():.0%} of groups"
    )
    return alarm_at(no_spread, "starvation", "warning", message, onset=full, raised=full + window - 1)


def no_exploration(no_spread: Series, unique: Series, window: int) -> Alarm | None:
    """Find a run that ends without different completions: groups without spread, few unique ones in each.

    That is an end of learning, at whatever height. What was lost, if anything, a fall of the reward tells.
    """
    no_spread, unique = no_spread.finite(), unique.finite()
    if not (can_show_trend(no_spread, window) and can_show_trend(unique, window)):
        return None
    spread, kinds = trailing_mean(no_spread.values, window), trailing_mean(unique.values, window)
    if spread[-1] < 0.95 or kinds[-1] > 0.5 * kinds[0]:
        return None
    full = (first_streak(spread >= 0.95, 1) or 0) + window - 1
    levels = f"unique completions fell from {kinds[0]:.3g} to {kinds[-1]:.3g}"
    message = f"{spread[-1]:.0%} of groups have no spread in reward, and {levels}"
    return alarm_at(unique, "no_exploration", "warning", message, onset=full, raised=full)


# Parts of a reward that pay for the form of a completion, by their names. Losing one of these costs no ability: a
# bonus for brevity falls where longer reasoning pays.
_FORM = re.compile(r"format|xml|tag|length|brev|concis|short|long|style|lang|repet|penal|structur|think|token", re.I)
# A part that never was a tenth of the whole does not count.
_LEAST_PART = 0.1
# Evaluations are few: three that stay below are the fewest that are not chance.
MIN_EVALUATIONS, _MIN_BELOW = 6, 3
# Held-out scores lose this share of what they had, or they have not fallen.
_LEAST_FALL = 0.25


def is_form(component: str) -> bool:
    """Whether a part of the reward pays for form, such as a format or a length, by its name."""
    return _FORM.search(component) is not None


def component_lost(reward: Series, parts: Sequence[Series], window: int) -> Alarm | None:
    """Find a part of the reward that collapses while the sum holds, because another part grew.

    Parts that pay for form are left out. A sum that falls too is an ordinary collapse. Of several parts, the first.
    """
    if not can_show_trend(reward.finite(), window) or drawdown(reward, window) is not None:
        return None
    height = float(np.abs(trailing_mean(reward.finite().values, window)).max())
    found = []
    for part in parts:
        fall = None if is_form(part.name) else drawdown(part, window)
        if fall is None or float(trailing_mean(part.finite().values, window).max()) < _LEAST_PART * height:
            continue
        gain, name = max((_gain(other, fall.onset), other.name) for other in [reward, *parts] if other is not part)
        if gain > 0:
            message = f"{fall.message}, while {name} rose by {gain:.3g}"
            found.append((fall, message))
    if not found:
        return None
    fall, message = min(found, key=lambda item: item[0].onset)
    return Alarm(
        detector="component_lost",
        signal=fall.signal,
        severity="collapse",
        onset=fall.onset,
        raised=fall.raised,
        message=message,
    )


def _gain(series: Series, since: int) -> float:
    """How much higher a series is on average after a step than before it; 0 where noise explains it."""
    series = series.finite()
    before, after = series.values[series.steps < since], series.values[series.steps >= since]
    if not len(before) or not len(after):
        return 0.0
    gain = float(after.mean() - before.mean())
    return gain if gain > 3 * noise_of(series.values) * np.sqrt(1 / len(before) + 1 / len(after)) else 0.0


def evaluation_falls(evaluation: Series, reward: Series, window: int) -> Alarm | None:
    """Find an evaluation that falls for good while the reward in training stands or rises.

    From its peak (of pairs of evaluations) it loses over a quarter of what it had, beyond its noise, and the last three
    evaluations or more lie below. The reward after the peak is on average no lower than before.
    """
    evaluation, reward = evaluation.finite(), reward.finite()
    if len(evaluation) < MIN_EVALUATIONS or not can_show_trend(reward, window):
        return None
    means = trailing_mean(evaluation.values, 2)
    peak = int(means.argmax())
    held = max(abs(float(means[peak])), float(means[peak] - means[: peak + 1].min()))
    limit = means[peak] - max(_LEAST_FALL * held, 3 * noise_of(evaluation.values) / np.sqrt(2))
    above = np.flatnonzero(evaluation.values > limit)
    first = int(above[-1]) + 1 if len(above) else 0
    if len(evaluation) - first < _MIN_BELOW or first <= peak:
        return None
    top = int(evaluation.steps[peak + 1])
    before, after = reward.values[reward.steps <= top], reward.values[reward.steps > top]
    error = noise_of(reward.values) / np.sqrt(window)
    if (
        not len(before)
        or not len(after)
        or trailing_mean(after, min(window, len(after)))[-1] < before.mean() - 3 * error
    ):
        return None
    at_peak = np.flatnonzero(evaluation.values[: first + 1] >= means[peak] - noise_of(evaluation.values))
    onset = int(at_peak[-1]) + 1 if len(at_peak) else first
    ends = f"{means[peak]:.3g} to {means[-1]:.3g}, while the reward in training went from {before.mean():.3g}"
    message = f"{evaluation.name} fell from {ends} to {trailing_mean(after, min(window, len(after)))[-1]:.3g}"
    raised = first + _MIN_BELOW - 1
    return alarm_at(evaluation, "evaluation_falls", "collapse", message, onset=min(onset, raised), raised=raised)
