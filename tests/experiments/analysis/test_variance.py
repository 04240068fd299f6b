"""The arithmetic of verdicts: agreement with scipy, error rates on simulated tables, coverage, planning."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments.analysis.variance import (
    MeanSquares,
    crossed_bootstrap,
    detectable_effect,
    holm,
    mean_squares,
    mean_test,
    smallest_detectable_effect,
)


def simulate(draw: np.random.Generator, seeds: int, tasks: int, *, seed_sd: float, task_sd: float, effect: float = 0.0):
    table = effect + draw.normal(0, 20, (seeds, tasks))
    return table + draw.normal(0, seed_sd, (seeds, 1)) + draw.normal(0, task_sd, (1, tasks))


@pytest.mark.parametrize("shape", [(1, 12), (12, 1)])
def test_one_level_is_the_one_sample_t_test(shape):
    table = np.random.default_rng(0).normal(3, 10, shape)
    ours, theirs = mean_test(table), stats.ttest_1samp(table.ravel(), 0)
    interval = theirs.confidence_interval(0.95)
    assert ours.p_value == pytest.approx(theirs.pvalue)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high))


def test_mean_squares_are_those_of_a_two_way_analysis_of_variance():
    table = np.array([[1.0, 4.0, 2.0], [3.0, 5.0, 9.0]])
    squares = mean_squares(table)
    total = ((table - table.mean()) ** 2).sum()
    assert squares.seeds * 1 + squares.tasks * 2 + squares.rest * 2 == pytest.approx(total)
    assert squares.seeds == pytest.approx(3 * table.mean(axis=1).var(ddof=1))


@pytest.mark.parametrize(("seed_sd", "task_sd"), [(0.0, 0.0), (0.0, 20.0), (4.0, 15.0)])
def test_nominal_error_and_coverage(seed_sd, task_sd):
    draw = np.random.default_rng(1)
    tests = [mean_test(simulate(draw, 5, 60, seed_sd=seed_sd, task_sd=task_sd, effect=5)) for _ in range(1200)]
    covered = np.mean([test.low <= 5 <= test.high for test in tests])
    assert 0.925 <= covered <= 0.985


def test_a_planted_effect_is_found():
    draw = np.random.default_rng(2)
    found = [
        mean_test(simulate(draw, 5, 124, seed_sd=3, task_sd=12, effect=20)).p_value < 0.05 / 16 for _ in range(200)
    ]
    assert np.mean(found) >= 0.95


def test_the_variance_is_unbiased_where_no_component_is_cut_off():
    draw = np.random.default_rng(3)
    variances = [mean_squares(simulate(draw, 6, 40, seed_sd=8, task_sd=20)).variance_of_mean()[0] for _ in range(800)]
    assert np.mean(variances) == pytest.approx(8**2 / 6 + 20**2 / 40 + 20**2 / 240, rel=0.06)


def null_differences(draw: np.random.Generator, seeds: int, tasks: int, rollouts: int) -> np.ndarray:
    """Differences of success in points, cell minus a warm start shared by all seeds, with no effect at all."""
    rates = draw.beta(1.2, 1.2, tasks)
    before = draw.binomial(rollouts, rates) / rollouts
    return 100 * (draw.binomial(rollouts, rates, (seeds, tasks)) / rollouts - before)


def test_null_grids_show_no_finding_after_holm():
    """Sixteen null cells: uncorrected, half of the grids would show a finding; with Holm few do."""
    draw = np.random.default_rng(6)
    grids = [[mean_test(null_differences(draw, 3, 60, 4)).p_value for _ in range(16)] for _ in range(150)]
    assert 0.02 <= np.mean(np.array(grids) < 0.05) <= 0.07
    assert np.mean([min(p_values) < 0.05 for p_values in grids]) > 0.3
    assert np.mean([min(holm(p_values)) < 0.05 for p_values in grids]) <= 0.1


def test_no_variance_at_all():
    same, moved = mean_test(np.zeros((3, 5))), mean_test(np.full((3, 5), 7.0))
    assert (same.p_value, same.low, same.high) == (1.0, 0.0, 0.0)
    assert (moved.p_value, moved.low, moved.high) == (0.0, 7.0, 7.0)


@pytest.mark.parametrize("num_tasks", [1, 3, 60, 124])
@pytest.mark.parametrize("value", [0.0, 100.0, -50.0])
def test_a_table_without_spread_is_as_sure_as_its_number_of_tasks(num_tasks, value):
    """Bounds by scipy's exact interval of no other task among so many, and p by its test of the sign."""
    test = mean_test(np.full((5, num_tasks), value), reach=100.0)
    others = stats.binomtest(0, num_tasks).proportion_ci(0.95, method="exact").high
    assert test.low == pytest.approx((1 - others) * value - others * 100)
    assert test.high == pytest.approx((1 - others) * value + others * 100)
    wanted = 1.0 if value == 0 else stats.binomtest(num_tasks, num_tasks).pvalue
    assert test.p_value == pytest.approx(wanted)
    assert mean_test(np.random.default_rng(0).normal(size=(3, 9)), reach=100.0).high < 2


def test_one_value_has_no_interval():
    test = mean_test(np.array([[3.0]]))
    assert test.p_value == 1.0
    assert test.low == -math.inf


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_the_raw_p_and_bonferroni(p_values):
    adjusted = holm(p_values)
    for raw, value in zip(p_values, adjusted, strict=True):
        assert raw <= value + 1e-12
        assert value <= min(1.0, len(p_values) * raw) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= -1e-12)


def test_the_crossed_bootstrap_covers_and_is_reproducible():
    draw = np.random.default_rng(4)
    tables = [simulate(draw, 5, 40, seed_sd=5, task_sd=20) for _ in range(150)]
    intervals = [crossed_bootstrap(table, generator=np.random.default_rng(0), replicates=1000) for table in tables]
    assert np.mean([low <= 0 <= high for low, high in intervals]) >= 0.88
    again = crossed_bootstrap(tables[0], generator=np.random.default_rng(0), replicates=1000)
    assert again == intervals[0]


def test_the_protocols_standard_errors():
    """3 seeds x 124 tasks: 1 -> 4 rollouts cuts the standard error from 4.7 to 2.7 points."""
    errors = []
    for num_rollouts in (1, 4):
        rest = 0.18 / num_rollouts
        squares = MeanSquares(
            seeds=rest + 124 * 0.02**2, tasks=rest + 3 * (0.115**2 + rest), rest=rest, num_seeds=3, num_tasks=124
        )
        errors.append(100 * math.sqrt(squares.variance_of_mean()[0]))
    assert errors == pytest.approx([4.7, 2.7], abs=0.05)


def test_more_of_anything_shows_smaller_effects():
    base = smallest_detectable_effect(3, 60, 2)
    assert smallest_detectable_effect(5, 60, 2) < base
    assert smallest_detectable_effect(3, 120, 2) < base
    assert smallest_detectable_effect(3, 60, 4) < base
    assert smallest_detectable_effect(3, 60, 2, num_comparisons=1) < base


def test_the_detectable_effect_has_its_power():
    draw = np.random.default_rng(5)
    effect = detectable_effect(10 / math.sqrt(20), 19)
    found = [stats.ttest_1samp(draw.normal(effect, 10, 20), 0).pvalue < 0.05 for _ in range(1500)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.04)
    assert detectable_effect(1.0, 0.0) == math.inf
