"""Uncertainty of a mean over seeds x tasks: two-way random effects (Searle, Casella & McCulloch 1992, ch. 4) with
Satterthwaite's degrees of freedom (1946), Holm's adjustment (1979), the crossed bootstrap (Owen 2007, McCullagh 2000).

Legend: s seeds, t tasks. A table of differences D[s, t] is seen as mean + seed effect + task effect + rest, all random,
since the claim is about new seeds and new tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.special import stdtr, stdtrit

POWER = 0.8
# Variance of one rollout around its task's success rate, and standard deviation of an effect over seeds and over tasks.
ROLLOUT_VARIANCE, SEED_SD, TASK_SD = 0.18, 0.02, 0.115


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanTest:
    """A mean with its standard error, two-sided p against 0 and interval; `degrees` are Satterthwaite's."""

    mean: float
    standard_error: float
    degrees: float
    p_value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanSquares:
    """Mean squares of a two-way table with one value a cell, and its sizes."""

    seeds: float
    tasks: float
    rest: float
    num_seeds: int
    num_tasks: int

    def variance_of_mean(self) -> tuple[float, float]:
        """Variance of the grand mean and its degrees of freedom.

        A component estimated below zero is taken as zero, so that the variance is never smaller than its largest part.
        """
        parts = [
            (max(self.seeds, self.rest), self.seeds > self.rest, self.num_seeds - 1),
            (max(self.tasks, self.rest), self.tasks > self.rest, self.num_tasks - 1),
        ]
        kept = [(square, degrees) for square, is_positive, degrees in parts if is_positive]
        rest_degrees = (self.num_seeds - 1) * (self.num_tasks - 1)
        if len(kept) == 2:
            total = self.seeds + self.tasks - self.rest
            spread = sum(square**2 / degrees for square, degrees in kept) + self.rest**2 / rest_degrees
            degrees = total**2 / spread
        elif kept:
            total, degrees = kept[0]
        else:
            total, degrees = self.rest, rest_degrees
        return total / (self.num_seeds * self.num_tasks), float(degrees)


def mean_squares(table: Float[np.ndarray, "s t"]) -> MeanSquares:
    """Mean squares for seeds, tasks and the rest; both sides need at least two levels."""
    num_seeds, num_tasks = table.shape
    by_seed = table.mean(axis=1) - table.mean()
    by_task = table.mean(axis=0) - table.mean()
    rest = table - table.mean() - by_seed[:, None] - by_task[None, :]
    return MeanSquares(
        seeds=float(num_tasks * (by_seed**2).sum() / (num_seeds - 1)),
        tasks=float(num_seeds * (by_task**2).sum() / (num_tasks - 1)),
        rest=float((rest**2).sum() / ((num_seeds - 1) * (num_tasks - 1))),
        num_seeds=num_seeds,
        num_tasks=num_tasks,
    )


def mean_test(table: Float[np.ndarray, "s t"], *, alpha: float = 0.05, reach: float | None = None) -> MeanTest:
    """Test the mean of a seeds x tasks table against 0.

    With one seed (or one task) this is the one-sample t-test over the other side, and says nothing about new seeds
    (or tasks). A table of one value has no standard error: its interval is unbounded.

    Args:
        reach: The largest size of a single value. A table whose values are all equal shows no spread to reckon with;
            its interval then is what so many equal tasks allow (`without_spread`). None: such a table is exact, as
            that of a control which must not differ at all.
    """
    mean = float(table.mean())
    num_seeds, num_tasks = table.shape
    if table.size == 1:
        return MeanTest(mean=mean, standard_error=math.inf, degrees=0.0, p_value=1.0, low=-math.inf, high=math.inf)
    if min(num_seeds, num_tasks) == 1:
        variance, degrees = float(table.var(ddof=1)) / table.size, table.size - 1.0
    else:
        variance, degrees = mean_squares(table).variance_of_mean()
    error = math.sqrt(variance)
    if error <= 1e-12 * max(1.0, abs(mean)):
        exact = MeanTest(
            mean=mean, standard_error=0.0, degrees=degrees, p_value=float(abs(mean) < 1e-12), low=mean, high=mean
        )
        return exact if reach is None else without_spread(exact, num_tasks, reach, alpha=alpha)
    half = float(stdtrit(degrees, 1 - alpha / 2)) * error
    p_value = 2 * float(stdtr(degrees, -abs(mean) / error))
    return MeanTest(
        mean=mean, standard_error=error, degrees=degrees, p_value=p_value, low=mean - half, high=mean + half
    )


def without_spread(exact: MeanTest, num_tasks: int, reach: float, *, alpha: float) -> MeanTest:
    """Test of a table whose values are all equal, exact over tasks: there is no spread from which to tell seeds.

    By Clopper and Pearson (1934), the share of tasks with another value lies below 1 - (alpha / 2)^(1 / tasks), which
    is the rule of three but for its side. These might be as far off as `reach`. The p-value is that of the sign test.
    """
    others = 1 - (alpha / 2) ** (1 / num_tasks)
    return replace(
        exact,
        p_value=1.0 if abs(exact.mean) < 1e-12 else min(1.0, 2 * 0.5**num_tasks),
        low=exact.mean - others * (reach + exact.mean),
        high=exact.mean + others * (reach - exact.mean),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values, in the order given: comparing them with alpha controls the family-wise error."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [1.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def crossed_bootstrap(
    table: Float[np.ndarray, "s t"], *, generator: np.random.Generator, replicates: int = 10_000, alpha: float = 0.05
) -> tuple[float, float]:
    """Percentile interval of the mean, with multinomial weights on seeds and, independently, on tasks."""
    num_seeds, num_tasks = table.shape
    seeds = generator.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=replicates) / num_seeds
    tasks = generator.multinomial(num_tasks, np.full(num_tasks, 1 / num_tasks), size=replicates) / num_tasks
    means = ((seeds @ table) * tasks).sum(axis=1)
    low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def detectable_effect(
    standard_error: float, degrees: float, *, num_comparisons: int = 1, alpha: float = 0.05, power: float = POWER
) -> float:
    """Smallest effect found with this power, in the unit of the standard error.

    The threshold is the strictest that Holm applies, alpha / num_comparisons: what a cell needs when it stands alone.
    """
    if not degrees or not math.isfinite(standard_error):
        return math.inf
    threshold = float(stdtrit(degrees, 1 - alpha / (2 * num_comparisons)))
    return (threshold + float(stdtrit(degrees, power))) * standard_error


def smallest_detectable_effect(
    num_seeds: int, num_tasks: int, num_rollouts: int, *, num_comparisons: int = 16
) -> float:
    """Smallest change of success, in percentage points, that a design finds with this power, before anything is run.

    The constants above give the standard errors of the protocol (3 seeds x 124 tasks: 4.7 points with one rollout, 2.7
    with four). The warm start is evaluated once for all seeds, so its noise is a task effect.
    """
    rest = ROLLOUT_VARIANCE / num_rollouts
    tasks = rest + num_seeds * (TASK_SD**2 + ROLLOUT_VARIANCE / num_rollouts)
    if num_seeds == 1:
        error, degrees = math.sqrt(tasks / num_tasks), num_tasks - 1.0
    elif num_tasks == 1:
        error, degrees = math.sqrt((rest + SEED_SD**2) / num_seeds), num_seeds - 1.0
    else:
        squares = MeanSquares(
            seeds=rest + num_tasks * SEED_SD**2, tasks=tasks, rest=rest, num_seeds=num_seeds, num_tasks=num_tasks
        )
        variance, degrees = squares.variance_of_mean()
        error = math.sqrt(variance)
    return 100 * detectable_effect(error, degrees, num_comparisons=num_comparisons)
