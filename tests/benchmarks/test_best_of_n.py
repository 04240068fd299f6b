"""What a pick among n is worth, against enumeration, chance and the oracle."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.best_of_n import best_of, interval


def by_enumeration(values: np.ndarray, success: np.ndarray, num: int) -> float:
    """Mean over all subsets of the mean success of those that share the highest value."""
    picks = []
    for part in map(list, itertools.combinations(range(len(values)), num)):
        best = values[part] == values[part].max()
        picks.append(success[part][best].mean())
    return float(np.mean(picks))


@pytest.mark.parametrize("num", [1, 2, 3, 5])
def test_the_best_of_n_is_the_mean_over_all_subsets(num: int) -> None:
    random = np.random.default_rng(num)
    success = random.random(5) < 0.4
    distinct, tied = random.random(5), random.integers(2, size=5).astype(float)
    assert best_of(distinct, success, num) == pytest.approx(by_enumeration(distinct, success, num))
    assert best_of(np.zeros(5), success, num) == pytest.approx(success.mean()), "all tied: chance"
    assert best_of(success.astype(float), success, 5) == float(success.any()), "the oracle"
    assert best_of(tied, success, num) == pytest.approx(by_enumeration(tied, success, num))


def test_an_interval_holds_the_mean_and_shrinks_with_the_tasks() -> None:
    random = np.random.default_rng(0)
    few, many = random.normal(0.1, 1, 20), random.normal(0.1, 1, 2000)
    spans = [interval(item) for item in (few, many)]
    assert all(low < item.mean() < high for (low, high), item in zip(spans, (few, many), strict=True))
    assert spans[1][1] - spans[1][0] < 0.3 * (spans[0][1] - spans[0][0])
