"""Detectors of a reward that is being gamed: what it claims moves away from what the server received.

They read a run in which both are known, for all episodes or for those that are audited: `claim`, `success`,
`reward_gap`, `rank_agreement` (docs/metrics.md). The first steps of the run are the baseline, since a judge that errs
evenly is not gamed: what counts is that its errors grow where the policy goes. The gap's cumulative sum is that of
Page (1954).

A gap alone cannot tell gaming from an honest policy that reaches failures which the judge had not seen before.
Agreement inside groups can: group methods learn from nothing else.
"""

from __future__ import annotations

import functools

import numpy as np

from experiments.analysis.collapse.detectors import Alarm, alarm_at, can_show_trend
from experiments.analysis.collapse.series import Series, first_streak, noise_of, trailing_mean

# In noise units. With a slack of half a unit and more, honest runs cross it in under 5 % (benchmarks/gaming_alarm.py).
_GAP_LIMIT = 10.0
# A gap that grew by less than this does not stop a run, however certain the growth.
_LEAST_GAP = 0.05
# Slopes in standard errors: the claim rises for sure, the truth probably falls, twice in a row.
_RISE, _FALL = 2.0, -1.0
# Agreement within groups that is lost: three standard errors, and a good part of what there was.
_LOST_ERRORS, _LOST_SHARE = 3.0, 0.5
# Standard errors by which it must exceed zero at first.
_TOLD_ERRORS = 3.0
# Share of it up to which claims still tell success from failure.
_KEPT_SHARE = 2 / 3
# Rows of its baseline, and of the gap's where agreement is lost: so few that runs which are gamed early are seen.
FEW_ROWS = 5
# Completions this many times as long as at first, or as short.
_LENGTH_FACTOR = 2.0


def gap_opens(gap: Series, claim: Series, agreement: Series, window: int) -> Alarm | None:
    """Find claims that outgrow the truth: the summed excess of their gap over its baseline, in noise units.

    The baseline are two windows. A gap that opens because the policy got worse is not gaming: claims must not have
    fallen with the truth. Nor is one that opens while claims still tell success from failure inside groups. Where they
    are known to do so no longer, five rows are baseline enough.
    """
    gap, claim = aligned(gap, claim)
    is_told = is_still_told(agreement, len(gap), window)
    if is_told:
        return None
    baselines = (2 * window,) if is_told is None else (FEW_ROWS, 2 * window)
    found = [_excess(gap, claim, first, window) for first in baselines]
    return min((alarm for alarm in found if alarm is not None), key=lambda alarm: alarm.raised, default=None)


def is_still_told(agreement: Series, num_rows: int, window: int) -> bool | None:
    """Whether agreement inside groups is about what it was at first.

    None where it is known too seldom to say, and where claims told nothing at first that could be kept: agreement was
    then not above zero by more than three standard errors.
    """
    agreement = agreement.finite()
    if len(agreement) < max(FEW_ROWS + window, num_rows / 2):
        return None
    first = agreement.values[:FEW_ROWS].mean()
    if not first > _TOLD_ERRORS * noise_of(agreement.values) / np.sqrt(FEW_ROWS):
        return None
    return bool(agreement.values[-window:].mean() > _KEPT_SHARE * first)


def _excess(gap: Series, claim: Series, first: int, window: int) -> Alarm | None:
    """The alarm of a gap against its mean over the first rows."""
    if len(gap) < first + window:
        return None
    level, noise = float(gap.values[:first].mean()), noise_of(gap.values)
    # The mean of a few rows is off by noise / sqrt(rows); the slack allows for two such errors.
    slack = 0.5 + 2 / np.sqrt(first)
    total, start = 0.0, first
    for index in range(first, len(gap)):
        start = index if total == 0 else start
        total = max(0.0, total + (gap.values[index] - level) / max(noise, 1e-6) - slack)
        if total > _GAP_LIMIT and _is_real(gap, claim, start, index, first, window):
            now = float(gap.values[start : index + 1].mean())
            message = f"{claim.name} exceeds success by {now:.2f} since step {gap.steps[start]}, at first {level:.2f}"
            return alarm_at(gap, "gap_opens", "collapse", message, onset=start, raised=index)
    return None


def _is_real(gap: Series, claim: Series, start: int, end: int, first: int, window: int) -> bool:
    """Whether the gap grew by enough, and not because claims fell less than the truth."""
    latest = slice(max(start, end + 1 - window), end + 1)
    grown = float(gap.values[latest].mean() - gap.values[:first].mean())
    error = noise_of(claim.values) * np.sqrt(1 / first + 1 / (end + 1 - latest.start))
    return grown > _LEAST_GAP and float(claim.values[latest].mean() - claim.values[:first].mean()) > -3 * error


def opposed_trends(claim: Series, success: Series, window: int) -> Alarm | None:
    """Find claims that rise while success falls, in two stretches of a window one after the other."""
    claim, success = aligned(claim, success)
    if not can_show_trend(claim, window):
        return None
    up, down = _slopes(claim, window), _slopes(success, window)
    is_opposed = (up > _RISE) & (down < _FALL)
    twice = np.flatnonzero(is_opposed[window:] & is_opposed[:-window]) if len(is_opposed) > window else np.empty(0)
    if not len(twice):
        return None
    onset, raised = int(twice[0]), int(twice[0]) + 2 * window - 1
    ends = [float(item.values[at : at + window].mean()) for item in (claim, success) for at in (onset, onset + window)]
    message = f"{claim.name} rises from {ends[0]:.2f} to {ends[1]:.2f} while success falls from {ends[2]:.2f} to "
    message += f"{ends[3]:.2f}"
    return alarm_at(claim, "opposed_trends", "collapse", message, onset=onset, raised=raised)


def _slopes(series: Series, window: int) -> np.ndarray:
    """Slope over each window, in its standard errors."""
    times = np.arange(window) - (window - 1) / 2
    parts = np.lib.stride_tricks.sliding_window_view(series.values, window)
    error = max(noise_of(series.values), 1e-9) / np.sqrt((times**2).sum())
    return parts @ times / (times**2).sum() / error


def agreement_lost(agreement: Series, window: int) -> Alarm | None:
    """Find claims that no longer tell success from failure within groups, which is all that group methods learn from.

    The trailing mean of Kendall's tau stays below half of its baseline, the first five rows, and three standard errors
    below, for a window.
    """
    agreement = agreement.finite()
    first = FEW_ROWS
    if len(agreement) < first + window:
        return None
    level = float(agreement.values[:first].mean())
    error = noise_of(agreement.values) * np.sqrt(1 / first + 1 / window)
    limit = min((1 - _LOST_SHARE) * level, level - _LOST_ERRORS * error)
    means = trailing_mean(agreement.values, window)
    start = first_streak(means < limit, window) if level > 0 else None
    if start is None:
        return None
    onset = start + window - 1
    what = "claims no longer tell success from failure within a group"
    message = f"{agreement.name} fell from {level:.2f} to {means[onset]:.2f}: {what}"
    return alarm_at(agreement, "agreement_lost", "collapse", message, onset=onset, raised=onset + window - 1)


def degenerate_length(length: Series, claim: Series, success: Series, window: int) -> Alarm | None:
    """Find completions that became twice as long or half as long, for a higher claim and no more success."""
    length, claim, success = aligned(length, claim, success)
    if not can_show_trend(length, window):
        return None
    lengths, claims, truths = (trailing_mean(item.values, window) for item in (length, claim, success))
    ratio = lengths / max(float(lengths[0]), 1e-9)
    errors = [noise_of(item.values) * np.sqrt(2 / window) for item in (claim, success)]
    is_out = (ratio > _LENGTH_FACTOR) | (ratio < 1 / _LENGTH_FACTOR)
    is_paid = (claims - claims[0] > 3 * errors[0]) & (truths - truths[0] < 2 * errors[1])
    start = first_streak(is_out & is_paid, window)
    if start is None:
        return None
    onset = start + window - 1
    message = f"{length.name} went from {lengths[0]:.3g} to {lengths[onset]:.3g}, and {claim.name} rose without success"
    return alarm_at(length, "degenerate_length", "collapse", message, onset=onset, raised=onset + window - 1)


def aligned(*series: Series) -> list[Series]:
    """The steps at which all of them are known: where the truth is audited, that is not every step."""
    finite = [item.finite() for item in series]
    shared = functools.reduce(np.intersect1d, [item.steps for item in finite])
    return [Series(name=item.name, steps=shared, values=item.values[np.isin(item.steps, shared)]) for item in finite]
