"""Error rates, coverage and power of the verdict rule on simulated grids: python -m benchmarks.stats_simulation.

A grid has 4 policies x 4 objectives. Tasks differ in their success rate, four in ten are always or never solved;
rollouts are coin flips; cells of a policy share its warm start. Under the null, effects of seeds and tasks average to
zero. A two-point seed does 15 points better or worse on what can move: the worst case for any rule, since three such
seeds agree by chance in one grid cell of four.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from experiments.analysis.variance import holm, mean_test

NUM_POLICIES, NUM_OBJECTIVES = 4, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    num_seeds: int
    num_tasks: int
    num_rollouts: int
    task_sd: float = 0.05
    seed_sd: float = 0.02
    has_two_point_seeds: bool = False
    effect: float = 0.0

    @property
    def name(self) -> str:
        kind = "two-point seeds" if self.has_two_point_seeds else f"seed sd {100 * self.seed_sd:g}"
        planted = f", planted {100 * self.effect:+g}" if self.effect else ""
        return f"{self.num_seeds} seeds x {self.num_tasks} tasks x {self.num_rollouts}, {kind}{planted}"


DESIGNS = [
    Design(num_seeds=3, num_tasks=124, num_rollouts=1),
    Design(num_seeds=3, num_tasks=124, num_rollouts=4),
    Design(num_seeds=3, num_tasks=124, num_rollouts=4, seed_sd=0.0, task_sd=0.0),
    Design(num_seeds=3, num_tasks=124, num_rollouts=4, seed_sd=0.06),
    Design(num_seeds=3, num_tasks=124, num_rollouts=4, seed_sd=0.12),
    Design(num_seeds=3, num_tasks=124, num_rollouts=4, has_two_point_seeds=True),
    Design(num_seeds=5, num_tasks=124, num_rollouts=4),
    Design(num_seeds=5, num_tasks=60, num_rollouts=4),
    Design(num_seeds=5, num_tasks=124, num_rollouts=4, seed_sd=0.06),
    Design(num_seeds=5, num_tasks=124, num_rollouts=4, seed_sd=0.12),
    Design(num_seeds=5, num_tasks=124, num_rollouts=4, has_two_point_seeds=True),
    Design(num_seeds=5, num_tasks=124, num_rollouts=4, effect=0.2),
    Design(num_seeds=3, num_tasks=124, num_rollouts=4, effect=0.2),
]


def _t_test(values: np.ndarray) -> float:
    """P-value of a one-sample t-test against 0 (scipy's result type has no attribute that a type checker knows)."""
    _, p_value = stats.ttest_1samp(values, 0)
    return float(np.asarray(p_value))


def simulate_grid(design: Design, draw: np.random.Generator) -> Iterator[np.ndarray]:
    """Differences in success of each cell, seeds x tasks, in points."""
    shape = (design.num_seeds, design.num_tasks)
    for _ in range(NUM_POLICIES):
        is_soft = draw.random(design.num_tasks) < 0.6
        rates = np.where(is_soft, draw.uniform(0.3, 0.7, design.num_tasks), draw.random(design.num_tasks) < 0.5)
        before = draw.binomial(design.num_rollouts, rates) / design.num_rollouts
        for _ in range(NUM_OBJECTIVES):
            seeds = draw.normal(0, design.seed_sd, (design.num_seeds, 1))
            if design.has_two_point_seeds:
                seeds = draw.choice([-0.15, 0.15], (design.num_seeds, 1))
            tasks = draw.normal(0, design.task_sd, (1, design.num_tasks))
            # Only soft tasks can move; the planted effect is divided by their share, so that it is the mean over all.
            shift = np.clip(seeds + tasks, -0.3, 0.3) * is_soft
            moved = np.clip(rates + shift, 0, 1) if design.effect == 0 else _planted(rates, shift, is_soft, design)
            after = draw.binomial(design.num_rollouts, np.broadcast_to(moved, shape)) / design.num_rollouts
            yield 100 * (after - before)


def _planted(rates: np.ndarray, shift: np.ndarray, is_soft: np.ndarray, design: Design) -> np.ndarray:
    """Turn tasks that are never solved into solved ones until the mean has risen by the planted effect."""
    moved = np.clip(rates + shift, 0, 1)
    never = np.flatnonzero(~is_soft & (rates == 0))
    gain = min(1.0, design.effect * design.num_tasks / max(1, len(never)))
    moved = np.array(np.broadcast_to(moved, (design.num_seeds, design.num_tasks)))
    moved[:, never] = gain
    return moved


def measure(design: Design, num_grids: int, *, seed: int) -> dict[str, float]:
    """Rates over simulated grids; a finding is `improved` or `regressed`, two-sided at 5 %."""
    draw = np.random.default_rng(seed)
    raw, seeds_only, tasks_only, improved, any_improved, covered, any_raw = [], [], [], [], [], [], []
    for _ in range(num_grids):
        tables = list(simulate_grid(design, draw))
        tests = [mean_test(table) for table in tables]
        p_values = [test.p_value for test in tests]
        hits = [p < 0.05 and test.mean > 0 for p, test in zip(holm(p_values), tests, strict=True)]
        raw += [p < 0.05 for p in p_values]
        seeds_only += [_t_test(table.mean(axis=1)) < 0.05 for table in tables]
        tasks_only += [_t_test(table.mean(axis=0)) < 0.05 for table in tables]
        improved += hits
        any_improved.append(any(hits))
        any_raw.append(min(p_values) < 0.05)
        covered += [test.low <= 100 * design.effect <= test.high for test in tests]
    return {
        "raw": float(np.mean(raw)),
        "seeds only": float(np.mean(seeds_only)),
        "tasks only": float(np.mean(tasks_only)),
        "coverage": float(np.mean(covered)),
        "any raw": float(np.mean(any_raw)),
        "improved": float(np.mean(improved)),
        "any improved": float(np.mean(any_improved)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grids", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = Table(title=f"{options.grids} simulated grids a design; shares in percent")
    table.add_column("design")
    for design in DESIGNS:
        rates = measure(design, options.grids, seed=options.seed)
        if len(table.columns) == 1:
            for name in rates:
                table.add_column(name, justify="right")
        table.add_row(design.name, *(f"{100 * value:.1f}" for value in rates.values()))
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
