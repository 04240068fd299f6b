"""Diagnosis: each kind of run is named, with the signal that moved first; healthy runs are left alone."""

from __future__ import annotations

import pytest

from experiments.analysis.collapse import USUAL_CAUSE, diagnose, title_of
from experiments.analysis.collapse.online import OnlineDiagnosis
from experiments.analysis.collapse.survival import Lifetime, lifetime
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


def converged(level: float, num_steps: int = 100) -> list[dict[str, float]]:
    """A run that comes to write one plan a task: right in a share of the tasks, wrong in the others, no group mixed."""
    rows = []
    for row in metrics_of("healthy", num_steps):
        done = min(1.0, row["step"] / (0.5 * num_steps))
        rises = {
            "success": 0.2 + (level - 0.2) * done,
            "all_good": level * done,
            "unique_completions": 0.9 - 0.78 * done,
        }
        rows.append(row | rises | {"reward": rises["success"], "frac_reward_zero_std": 0.2 + 0.8 * done})
    return rows


@pytest.mark.parametrize(("level", "kind"), [(0.85, "starved"), (1.0, "saturated"), (0.4, "starved")])
def test_a_policy_that_learned_and_writes_one_plan_a_task_lost_nothing(level, kind):
    """Neither at the end nor while it trains: an alarm and the diagnosis agree on what a collapse is."""
    rows = converged(level)
    found = diagnose(rows)
    assert (found.kind, found.is_collapsed) == (kind, False), found.sentence
    assert "groups without different completions" in {item.name for item in found.checks if item.outcome == "found"}
    assert not any(OnlineDiagnosis(on_alarm="stop").observe(row) for row in rows)


@pytest.mark.parametrize("signal", ["grad_norm", "reward"])
def test_a_number_that_is_not_finite_at_the_end_does_not_rename_an_earlier_collapse(signal):
    rows = metrics_of("off_policy", 100)
    rows[-1][signal] = None
    found = diagnose(rows)
    assert found.kind == "off_policy"
    assert found.onset is not None and 45 <= found.onset <= 65
    assert {alarm.detector for alarm in found.alarms} >= {"non_finite", "drawdown"}
    assert diagnose(metrics_of("numerical", 100)).kind == "numerical"


def test_rollouts_lost_and_ratios_off_after_a_collapse_do_not_rename_it():
    for name, value in (("fault_share", 0.5), ("ratio_dev_u0", 0.3)):
        rows = [{**row, name: value * (row["step"] >= 90)} for row in metrics_of("drift", 100)]
        assert diagnose(rows).kind == "drift"


def test_the_sentence_is_that_of_the_alarm_that_decided():
    """A slide of the reward was noticed before the reward stopped being a number."""
    rows = metrics_of("healthy", 100)
    for row in rows[60:]:
        row["reward"] -= 0.25
    rows[-1]["reward"] = None
    found = diagnose(rows)
    assert {alarm.detector for alarm in found.alarms if alarm.signal == "reward"} == {"cusum", "non_finite"}
    assert (found.kind, found.onset) == ("numerical", 99)
    assert "reward is not finite from step 99 on" in found.sentence


def test_a_collapse_by_noise_of_the_estimator_is_dated_where_it_fell():
    rows = [{**row, "ratio_dev_u0": 0.4} for row in metrics_of("unexplained", 100)]
    found = diagnose(rows)
    assert (found.kind, found.is_collapsed) == ("estimator_noise", True)
    assert found.onset is not None and 55 <= found.onset <= 65
    assert lifetime(found) == Lifetime(steps=found.onset, is_collapsed=True)
    assert f"Estimator noise, and a fall from step {found.onset}: ratio_dev_u0 is 0.4" in found.sentence
    assert diagnose(metrics_of("estimator_noise", 100)).onset == 0


def test_too_few_values_of_what_a_check_reads_are_too_short_to_tell():
    rows = [{**row, "rewards/a": 0.5, "rewards/b": 0.5} for row in metrics_of("healthy", 200)]
    for index, row in enumerate(rows):
        if index % 80 == 0:
            row["eval_reward"] = 0.5
        if index % 20:
            del row["rewards/b"], row["entropy"]
    found = {item.name: item for item in diagnose(rows).checks}
    for name, detail in {
        "evaluation falls while training does not": "needs 6 values of eval_reward, and there are 3",
        "entropy explodes": "needs 40 values of entropy, and there are 10",
        "a part of the reward lost behind a growing one": "needs 40 values of rewards/b, and there are 10",
    }.items():
        assert (found[name].outcome, found[name].detail) == ("too short to tell", detail)
    assert found["reward or success fell under half of its peak"].outcome == "not found"


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
