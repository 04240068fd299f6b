"""Why a cell does not convert its near misses, in words, from metrics that every training step writes.

A cell converts where nine in ten right plans succeed after training; one that did so before, and no longer does, lost
its finish. What keeps it from that is looked
for in the order in which a cause makes the next ones unreadable: nothing to convert, an estimator or machine at fault,
no signal, a policy that was lost, contrast that is about something else. What is left is a surrogate that points
elsewhere, which a run cannot tell: the microscope can (docs/results/microscope.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from experiments.analysis.collapse import Diagnosis, Kind, title_of
from experiments.analysis.collapse.series import Series, read_series
from experiments.analysis.pairing import Summary

CONVERTED = 0.9
# Share of steps without any group with spread, and of mixed groups among those with right plans: beyond these the
# larger part of a run's updates says nothing about the finish.
_MAX_FLAT_STEPS, _MIN_MIXED = 0.5, 0.25

State = Literal["converts", "converted at the start", "lost its finish", "falls short", "nothing right", "untold"]
Cause = Literal["nothing_right", "fault", "no_signal", "collapse", "off_policy", "other_contrast", "unexplained"]
_FAULTS: tuple[Kind, ...] = ("numerical", "environment", "estimator_noise")
_LOST: tuple[Kind, ...] = ("off_policy", "concentration", "entropy_explosion", "drift", "reward_hacking", "unexplained")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What became of the near misses of a cell.

    Attributes:
        reason: Why it does not convert, in a sentence; empty where it does, or where nothing is known.
    """

    state: State
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedSeed:
    """One seed of a cell: its rows of metrics and what they were diagnosed as."""

    metrics: Sequence[Mapping[str, Any]]
    diagnosis: Diagnosis


def conversion_of(before: Summary, after: Summary, seeds: Sequence[TrainedSeed]) -> Conversion:
    """Say whether a cell converts, and if not (or no longer), the cause that most of its seeds share."""
    if after.right is None:
        return Conversion(state="untold")
    converted, converts = (each.conversion is not None and each.conversion >= CONVERTED for each in (before, after))
    if converts:
        return Conversion(state="converted at the start" if converted else "converts")
    state: State = "lost its finish" if converted else "falls short"
    if after.conversion is None:
        state = "nothing right"
    found = [_cause(seed) for seed in seeds if len(read_series(seed.metrics, "right"))]
    if not found:
        return Conversion(state=state)
    (cause, count), *_ = Counter(cause for cause, _ in found).most_common()
    sentence = next(sentence for other, sentence in found if other == cause)
    share = f" ({count} of {len(found)} seeds; figures of the first)" if len(found) > 1 else ""
    return Conversion(state=state, reason=f"{sentence}{share}")


def _cause(seed: TrainedSeed) -> tuple[Cause, str]:
    diagnosis, rows = seed.diagnosis, seed.metrics
    alarms = {alarm.detector: alarm for alarm in diagnosis.alarms}
    if diagnosis.kind in _FAULTS:
        return "fault", diagnosis.sentence
    right = read_series(rows, "right").finite()
    if not (right.values > 0).any():
        return "nothing_right", "Nothing to convert: no plan had all of its fields right in training."
    flat = read_series(rows, "frac_reward_zero_std").finite()
    num_flat = int((flat.values >= 1).sum())
    if num_flat > _MAX_FLAT_STEPS * len(flat):
        title = f" ({title_of(diagnosis.kind)})" if diagnosis.kind in ("starved", "never_alive") else ""
        return "no_signal", f"No signal: no group had spread in {num_flat} of {len(flat)} steps{title}."
    if diagnosis.kind in _LOST:
        return "collapse", diagnosis.sentence
    if "far_off_policy" in alarms:
        return "off_policy", f"Off-policy blow-up: {alarms['far_off_policy'].message}."
    return _contrast(read_series(rows, "right_mixed_groups").finite(), rows)


def _contrast(mixed: Series, rows: Sequence[Mapping[str, Any]]) -> tuple[Cause, str]:
    """What groups compared: the finish, or right fields with wrong ones."""
    if not len(mixed):
        return "no_signal", "No signal: no group had two plans with right fields to compare."
    share = float(mixed.values.mean())
    figures = f"{share:.0%} of the groups with right plans were mixed{_within(rows)}"
    if share < _MIN_MIXED:
        return "other_contrast", (
            f"Little signal about the finish: {figures}, so that groups compare right with wrong fields. "
            "Sample with a rule that explores."
        )
    return "unexplained", (
        f"There was signal ({figures}), and nothing watched went wrong: too few steps, too low a rate, or a surrogate "
        "that points elsewhere, which the microscope tells."
    )


def _within(rows: Sequence[Mapping[str, Any]]) -> str:
    shares = read_series(rows, "right_within_share").finite().values
    return f", within-group share of the variance {np.mean(shares):.2f}" if len(shares) else ""
