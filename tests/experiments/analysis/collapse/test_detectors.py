"""Detectors on synthetic curves: what they find, when, and how rarely they are wrong."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.analysis.collapse import detectors
from experiments.analysis.collapse.series import Series, noise_of, read_series, window_of


def series(values, name="reward") -> Series:
    return Series(name=name, steps=np.arange(len(values)), values=np.asarray(values, dtype=float))


def curve(shape: str, num_steps: int, draw: np.random.Generator, *, noise: float = 0.08) -> Series:
    time = np.arange(num_steps)
    level = 0.4 + 0.25 * np.minimum(1, time / (0.4 * num_steps))
    if shape == "sudden":
        level = np.where(time < 0.6 * num_steps, level, 0.05)
    elif shape == "slow":
        level = level * (1 - 0.95 * np.clip((time - 0.4 * num_steps) / (0.6 * num_steps), 0, 1))
    return series(np.clip(level + draw.normal(0, noise, num_steps), 0, 1))


@pytest.mark.parametrize("num_steps", [40, 100, 300])
def test_a_sudden_collapse_is_always_found_and_dated(num_steps):
    draw = np.random.default_rng(0)
    for _ in range(60):
        alarm = detectors.drawdown(curve("sudden", num_steps, draw), window_of(num_steps))
        assert alarm is not None
        assert abs(alarm.onset - 0.6 * num_steps) <= 3
        assert alarm.raised - 0.6 * num_steps <= 2 * window_of(num_steps)


def test_a_slow_decline_is_found():
    draw = np.random.default_rng(1)
    curves = [curve("slow", 100, draw) for _ in range(100)]
    assert np.mean([detectors.drawdown(item, 10) is not None for item in curves]) >= 0.97
    assert np.mean([detectors.cusum(item, 10) is not None for item in curves]) >= 0.97


@pytest.mark.parametrize("num_steps", [20, 40, 100, 300])
def test_a_plateau_raises_few_false_alarms(num_steps):
    draw = np.random.default_rng(2)
    window = window_of(num_steps)
    curves = [curve("plateau", num_steps, draw) for _ in range(150)]
    assert not any(detectors.drawdown(item, window) for item in curves)
    assert np.mean([detectors.cusum(item, window) is not None for item in curves]) <= 0.03


def test_a_short_run_is_never_said_to_fall():
    falling = series([0.9, 0.7, 0.4, 0.2, 0.1, 0.0])
    assert detectors.drawdown(falling, window_of(6)) is None
    assert detectors.cusum(falling, window_of(6)) is None


def test_a_dip_that_recovers_is_no_collapse():
    values = np.full(100, 0.6)
    values[50:56] = 0.0
    assert detectors.drawdown(series(values), 10) is None


def test_not_finite():
    nan = float("nan")
    assert detectors.non_finite(series([1, 2, nan, 3])) is None
    assert detectors.non_finite(series([1, 2, nan, nan], "kl")).onset == 2
    assert detectors.non_finite(series([1, 2, 3, float("inf")], "reward")).onset == 3
    for_a_while = detectors.non_finite(series([nan, nan, 1, 2, 3, 4, 5], "grad_norm"))
    assert (for_a_while.detector, for_a_while.severity) == ("non_finite_for_a_while", "warning")
    assert detectors.non_finite(series([1, nan, nan, nan, nan, 3])).severity == "error"
    assert detectors.non_finite(series([0, 0, 2, 4], "nonfinite_gradients"), is_count=True).onset == 2
    assert detectors.non_finite(series([])) is None


def test_the_last_row_of_a_run_that_is_over_is_its_last_word():
    ended = series([1, 2, 3, float("inf")], "kl")
    assert detectors.non_finite(ended).onset == 3
    assert detectors.non_finite(ended, is_over=False) is None
    got_over_one = series([1, float("inf"), 3, float("inf")], "grad_norm")
    assert detectors.non_finite(got_over_one) is None


def test_a_ratio_off_one_before_the_update_is_an_error_at_any_length():
    alarm = detectors.off_policy_at_start(series([0.0, 0.3], "ratio_dev_u0"))
    assert alarm is not None
    assert (alarm.severity, alarm.onset) == ("error", 1)
    assert detectors.off_policy_at_start(series([0.0, 1e-6, 0.0])) is None


def test_a_run_that_goes_on_is_not_stopped_for_its_first_lost_rollouts():
    assert detectors.faults(series([0.4]), 5, is_over=False) is None
    assert detectors.faults(series([0.4] * 5), 5, is_over=False) is not None
    assert detectors.faults(series([0.4]), 5) is not None


def test_faults_over_the_limit():
    assert detectors.faults(series([0.0, 0.04, 0.05, 0.03]), 5) is None
    alarm = detectors.faults(series([0.0] * 20 + [0.4] * 5), 5)
    assert alarm is not None
    assert alarm.onset == 20


def test_a_null_is_a_value_that_was_not_finite_and_a_missing_key_is_none():
    rows = [{"step": 3, "kl": 0.5}, {"step": 4}, {"step": 5, "kl": None}]
    found = read_series(rows, "kl")
    assert found.steps.tolist() == [3, 5]
    assert np.isnan(found.values[1])


def test_noise_is_that_of_the_steps_not_of_the_trend():
    draw = np.random.default_rng(3)
    trend = np.linspace(0, 5, 400) + draw.normal(0, 0.1, 400)
    trend[200:] -= 3
    assert noise_of(trend) == pytest.approx(0.1, rel=0.2)
    assert noise_of(np.ones(2)) == 0.0


@pytest.mark.parametrize(
    ("values", "fall", "wanted"),
    [
        ([0.01, 0.02, 0.01, 0.03, 0.02, 0.02, 0.01, 0.02, 0.09, 0.02], 9, 8),
        ([0.01, 0.02, 0.01, 0.03, 0.02, 0.02, 0.01, 0.02, 0.04, 0.02], 9, None),
        ([0.01, 0.02, 0.08, 0.03, 0.02, 0.02, 0.01, 0.02, 0.09, 0.02], 9, None),
        ([0.01, 0.02, 0.01, 0.03, 0.02, 0.02, 0.01, 0.02, 0.01, 0.02, 0.2], 9, None),
        ([0.2, 0.2, 0.2], 2, None),
        ([], 5, None),
    ],
    ids=["jump", "too little", "as large before", "after the fall", "nothing before", "empty"],
)
def test_a_surge_is_a_jump_right_before_the_fall_beyond_all_before(values, fall, wanted):
    alarm = detectors.surge(series(values, "ratio/far_share"), fall, 3)
    assert (None if alarm is None else alarm.onset) == wanted


def test_noise_before_a_fall_is_seldom_a_surge():
    draw = np.random.default_rng(3)
    shares = [draw.gamma(4, 0.01, 40) for _ in range(400)]
    assert np.mean([detectors.surge(series(item, "ratio/far_share"), 24, 3) is not None for item in shares]) <= 0.03
