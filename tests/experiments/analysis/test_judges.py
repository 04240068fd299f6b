"""What is said of a judge: figures by hand, and an interval that covers the true rate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dllm_rl.errors import ConfigError
from experiments.analysis.judges import audit, auroc, calibration_error, corrected_success


def test_figures_by_hand() -> None:
    claims = np.array([0.9, 0.8, 0.3, 0.7, 0.2, 0.1])
    truth = np.array([1, 1, 1, 0, 0, 0], dtype=bool)
    found = audit(claims, truth, ["", "", "", "swapped values", "wrong value", "wrong value"])
    assert (found.precision, found.sensitivity, found.specificity, found.f1) == pytest.approx((2 / 3,) * 4)
    assert found.auroc == pytest.approx(8 / 9)
    assert [(item.name, item.count, item.false_positive_rate) for item in found.classes] == [
        ("swapped values", 1, 1.0),
        ("wrong value", 2, 0.0),
    ]
    # One-sided bounds by hand: all of one may be all; none of two may be as many as 1 - .05 ** (1 / 2).
    assert [item.at_most for item in found.classes] == pytest.approx([1.0, 1 - 0.05**0.5])
    assert [item.auroc for item in found.classes] == pytest.approx([2 / 3, 1.0])
    assert found.brier == pytest.approx(np.mean((claims - truth) ** 2))


def test_what_nothing_defines_is_no_number() -> None:
    found = audit(np.array([0.1, 0.2]), np.array([False, False]), ["x", "x"])
    assert math.isnan(found.precision) and math.isnan(found.sensitivity) and math.isnan(found.auroc)
    assert found.specificity == 1.0


def test_ties_count_half_and_even_claims_are_calibrated() -> None:
    truth = np.array([True, False])
    assert auroc(np.array([0.5, 0.5]), truth) == 0.5
    assert calibration_error(np.array([0.5, 0.5]), truth) == 0.0
    assert calibration_error(np.array([1.0, 1.0]), truth) == 0.5


def test_the_corrected_rate_covers_the_true_one() -> None:
    """A judge that errs evenly: 95 % intervals hold the true rate in most of 300 runs, the judged rate lies outside."""
    random = np.random.default_rng(0)
    sensitivity, specificity, rate = 0.85, 0.8, 0.3
    covered = inside = 0
    for _ in range(300):
        truth = random.random(400) < 0.5
        claims = np.where(truth, random.random(400) < sensitivity, random.random(400) >= specificity).astype(float)
        known = audit(claims, truth, ["x"] * 400)
        fresh = random.random(500) < rate
        judged = np.where(fresh, random.random(500) < sensitivity, random.random(500) >= specificity).mean()
        found = corrected_success(float(judged), 500, known)
        covered += found.low <= rate <= found.high
        inside += found.low <= found.judged <= found.high
    assert 0.90 <= covered / 300 <= 0.99
    assert inside / 300 < 0.7


@pytest.mark.parametrize("rate", [0.0, 0.02, 1.0])
def test_the_corrected_rate_is_covered_at_its_ends(rate: float) -> None:
    random = np.random.default_rng(1)
    covered, narrowest = 0, 1.0
    for _ in range(300):
        truth = np.arange(200) < 100
        claims = np.where(truth, random.random(200) < 0.9, random.random(200) >= 0.9).astype(float)
        fresh = random.random(20) < rate
        judged = np.where(fresh, random.random(20) < 0.9, random.random(20) >= 0.9).mean()
        found = corrected_success(float(judged), 20, audit(claims, truth, ["x"] * 200))
        covered += found.low <= rate <= found.high
        narrowest = min(narrowest, found.high - found.low)
    assert covered / 300 >= 0.93
    assert narrowest > 0.05, "twenty episodes cannot fix a rate"


def test_a_judge_that_knows_nothing_corrects_nothing() -> None:
    known = audit(np.array([1.0, 1.0, 0.0, 0.0]), np.array([True, False, True, False]), ["", "x", "", "x"])
    with pytest.raises(ConfigError, match="sum to 1"):
        corrected_success(0.5, 10, known)


@pytest.mark.parametrize("kind", ["success", "failure"])
def test_errors_on_one_kind_of_episodes_correct_nothing(kind: str) -> None:
    """Otherwise the other error rate is not a number, and the advice would be to train the judge."""
    known = audit(np.array([1.0, 0.0, 1.0]), np.full(3, kind == "failure"), ["x"] * 3)
    with pytest.raises(ConfigError, match=f"no {kind} is among .* Audit evidence that has a {kind}"):
        corrected_success(0.5, 10, known)
