"""Diagnosis: each kind of run is named, with the signal that moved first; healthy runs are left alone."""

from __future__ import annotations

import pytest

from experiments.analysis.collapse import USUAL_CAUSE, diagnose, title_of
from tests.experiments.synthetic import metrics_of

FIRST = {
    "off_policy": {"ratio_spread", "grad_norm", "ess"},
    "concentration": {"entropy", "unique_completions"},
    "drift": {"parse_valid", "completion_length"},
    "numerical": {"grad_norm"},
    "environment": {"fault_share"},
    "estimator_noise": {"ratio_dev_u0"},
    "never_alive": {"frac_reward_zero_std"},
    "saturated": {"all_good"},
}
COLLAPSED = {"off_policy", "concentration", "drift", "numerical", "unexplained"}


@pytest.mark.parametrize("num_steps", [60, 200])
@pytest.mark.parametrize("kind", [*FIRST, "unexplained", "healthy"])
def test_each_kind_is_named(kind, num_steps):
    for seed in range(5):
        found = diagnose(metrics_of(kind, num_steps, seed=seed))
        assert found.kind == kind
        assert found.is_collapsed == (kind in COLLAPSED)
        if kind in FIRST:
            assert found.first_signal in FIRST[kind]
        assert found.sentence.endswith(".")


def test_no_healthy_run_of_twenty_is_called_collapsed():
    assert not any(diagnose(metrics_of("healthy", 100, seed=seed)).is_collapsed for seed in range(20))


def test_the_fall_is_dated():
    found = diagnose(metrics_of("concentration", 200))
    assert found.onset is not None
    assert abs(found.onset - 120) <= 6
    assert [item.step for item in found.departures] == sorted(item.step for item in found.departures)
    assert found.departures[0].step < found.onset


def test_six_steps_are_too_short_to_tell_and_say_so():
    found = diagnose(metrics_of("off_policy", 6))
    assert found.kind == "too_short"
    assert not found.is_collapsed
    assert {check.outcome for check in found.checks} == {"too short to tell", "not found", "no data"}


def test_six_steps_still_show_errors():
    assert diagnose(metrics_of("estimator_noise", 6)).kind == "estimator_noise"
    assert diagnose(metrics_of("environment", 6)).kind == "environment"


def test_a_judge_that_does_not_answer_is_told_from_an_environment_that_loses():
    rows = [
        row | {"fault_share": 0.0, "judge_fault_share": row["fault_share"]} for row in metrics_of("environment", 60)
    ]
    found = diagnose(rows)
    (alarm,) = [alarm for alarm in found.alarms if alarm.detector == "faults"]
    assert (found.kind, alarm.signal) == ("environment", "judge_fault_share")
    assert "since the judge gave no answer" in alarm.message


def test_a_run_that_breaks_in_its_first_steps_has_no_healthy_band_and_is_named_all_the_same():
    """As seen in a real run at a hundredfold learning rate: one step, then every reward is 0 and nothing is updated."""
    rows = [{"step": 0, "reward": 0.42, "ratio/far_share": 0.28}]
    rows += [{"step": step, "reward": 0.0} for step in range(1, 24)]
    found = diagnose(rows)
    assert (found.kind, found.first_signal, found.onset) == ("off_policy", "ratio/far_share", 1)
    assert "28% of the importance ratios" in found.sentence
    assert diagnose([{**row, "ratio/far_share": 0.0} for row in rows]).kind == "unexplained"


def test_an_empty_run_has_nothing_to_say():
    found = diagnose([])
    assert found.kind == "too_short"
    assert {check.outcome for check in found.checks} == {"no data"}


def test_every_check_is_listed_whatever_came_of_it():
    names = {check.name for check in diagnose(metrics_of("healthy", 60)).checks}
    assert names == {check.name for check in diagnose(metrics_of("off_policy", 60)).checks}
    assert len(names) == 19


def test_metrics_under_trl_and_verl_names_are_read():
    trl = [
        {
            "step": row["step"],
            "reward": row["reward"],
            "entropy": row["entropy"],
            "frac_reward_zero_std": row["frac_reward_zero_std"],
            "completions/mean_length": row["completion_length"],
            "completions/clipped_ratio": 1 - row["eos_share"],
        }
        for row in metrics_of("concentration", 100)
    ]
    assert diagnose(trl).kind == "concentration"
    verl = [
        {
            "training/global_step": row["step"],
            "critic/score/mean": row["reward"],
            "actor/grad_norm": row["grad_norm"],
            "actor/pg_clipfrac": row["clip_ratio/region_mean"],
            "actor/entropy": row["entropy"],
        }
        for row in metrics_of("off_policy", 100)
    ]
    found = diagnose(verl)
    assert (found.kind, found.first_signal) == ("off_policy", "grad_norm")


def test_every_kind_has_a_title_and_a_cause():
    assert all(title_of(kind) for kind in USUAL_CAUSE)
