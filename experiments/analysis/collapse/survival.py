"""Time to collapse across seeds, right-censored at the end of each run: Kaplan-Meier (1958) and the log-rank test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from experiments.analysis.collapse.diagnosis import Diagnosis

if TYPE_CHECKING:
    from scipy import stats


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """How long one run lived, in steps.

    Attributes:
        is_collapsed: It ended by collapse, and not by the end of the run.
    """

    steps: int
    is_collapsed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Survival:
    """Share of runs still alive after each listed step.

    Attributes:
        median: First step by which half are lost, None if never.
    """

    steps: tuple[int, ...]
    shares: tuple[float, ...]
    num_runs: int
    num_collapsed: int
    median: int | None


def lifetime(diagnosis: Diagnosis) -> Lifetime:
    """Lifetime of a diagnosed run. Steps count from that of the trainer, also where the log begins later."""
    if diagnosis.is_collapsed and diagnosis.onset is not None:
        return Lifetime(steps=diagnosis.onset, is_collapsed=True)
    return Lifetime(steps=max(diagnosis.num_steps, diagnosis.last_step), is_collapsed=False)


def _censored(lives: Sequence[Lifetime]) -> stats.CensoredData:
    from scipy import stats

    times = np.array([life.steps for life in lives], dtype=float)
    return stats.CensoredData.right_censored(times, [not life.is_collapsed for life in lives])


def kaplan_meier(lives: Sequence[Lifetime]) -> Survival:
    """Estimate survival; at least one run is needed."""
    # Most of a second of imports, which what only reads a run does not need.
    from scipy import stats

    curve = stats.ecdf(_censored(lives)).sf
    steps = tuple(int(step) for step in curve.quantiles)
    shares = tuple(float(share) for share in curve.probabilities)
    return Survival(
        steps=steps,
        shares=shares,
        num_runs=len(lives),
        num_collapsed=sum(life.is_collapsed for life in lives),
        median=next((step for step, share in zip(steps, shares, strict=True) if share <= 0.5), None),
    )


def log_rank(first: Sequence[Lifetime], second: Sequence[Lifetime]) -> float | None:
    """Two-sided p that both groups collapse alike; None where a group is empty or nothing collapsed."""
    from scipy import stats

    if not first or not second or not any(life.is_collapsed for life in [*first, *second]):
        return None
    # Where no two runs of different groups were ever at risk together, there is nothing to compare.
    with np.errstate(invalid="ignore", divide="ignore"):
        p_value = float(stats.logrank(_censored(first), _censored(second)).pvalue)
    return p_value if math.isfinite(p_value) else None
