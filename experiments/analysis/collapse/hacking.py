"""Detectors of rewards that are gained beside the point: a part of the reward that is lost, an evaluation that falls.

Both are blind spots of the sum: it stands or rises while what it was meant to stand for is lost (Goodhart's law; Gao et
al., arXiv 2210.10760, of reward models).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from experiments.analysis.collapse.detectors import Alarm, alarm_at, can_show_trend, drawdown
from experiments.analysis.collapse.series import Series, noise_of, trailing_mean

# Parts of a reward that pay for the form of a completion, by their names. Losing one of these is no loss of ability: a
# bonus for brevity falls where longer reasoning pays.
_FORM = re.compile(r"format|xml|tag|length|brev|concis|short|long|style|lang|repet|penal|structur|think|token", re.I)
# A part that never was a tenth of the whole is no part of its story.
_LEAST_PART = 0.1
# Evaluations are few: three that stay below are the least that is no accident.
_MIN_EVALUATIONS, _MIN_BELOW = 6, 3
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
    if len(evaluation) < _MIN_EVALUATIONS or not can_show_trend(reward, window):
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
