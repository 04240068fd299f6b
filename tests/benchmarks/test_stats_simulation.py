"""The verdict rule on simulated grids of 16 cells: false findings, coverage and power. Soak: 400 grids a design."""

from __future__ import annotations

import pytest

from benchmarks.stats_simulation import Design, measure

NULL = {
    "five seeds": Design(num_seeds=5, num_tasks=124, num_rollouts=4),
    "five seeds that differ": Design(num_seeds=5, num_tasks=124, num_rollouts=4, seed_sd=0.06),
    "five seeds that differ much": Design(num_seeds=5, num_tasks=124, num_rollouts=4, seed_sd=0.12),
    "half of the tasks": Design(num_seeds=5, num_tasks=60, num_rollouts=4),
    "three seeds": Design(num_seeds=3, num_tasks=124, num_rollouts=4),
}
PLANTED = Design(num_seeds=5, num_tasks=124, num_rollouts=4, effect=0.2)


def test_few_null_grids_show_a_finding_and_a_planted_effect_is_found():
    rates = measure(NULL["five seeds"], 60, seed=0)
    assert 0.02 <= rates["raw"] <= 0.07
    assert rates["any improved"] <= 0.05
    assert 0.90 <= rates["coverage"] <= 0.97
    # What Holm is for: without it, far more grids would show something.
    assert rates["any raw"] >= 0.2
    assert measure(PLANTED, 10, seed=0)["improved"] >= 0.95


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", NULL)
def test_over_400_null_grids_the_rates_are_those_of_the_protocol(name):
    rates = measure(NULL[name], 400, seed=0)
    print(name, {key: f"{100 * value:.1f} %" for key, value in rates.items()})
    assert 0.02 <= rates["raw"] <= 0.07
    assert rates["any improved"] <= 0.05
    assert 0.90 <= rates["coverage"] <= 0.97


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_over_400_grids_twenty_points_are_found():
    rates = measure(PLANTED, 400, seed=0)
    print("planted", {key: f"{100 * value:.1f} %" for key, value in rates.items()})
    assert rates["improved"] >= 0.95
