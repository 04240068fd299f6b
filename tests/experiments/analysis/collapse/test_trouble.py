"""Reports from the field (D1 to D11), each rebuilt as a small run: what was judged wrongly or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from experiments.analysis.collapse import Diagnosis, diagnose
from experiments.analysis.collapse.readers import one_a_step
from experiments.analysis.collapse.survival import Lifetime, lifetime

Rows = list[dict[str, Any]]


def rows_of(num_rows: int = 120, *, stride: int = 1, seed: int = 0, **columns: Any) -> Rows:
    """Rows with a noise of .02 on the reward. A column is a number, or a function of the share of the run done."""
    draw = np.random.default_rng(seed)
    rows = []
    for index in range(num_rows):
        row: dict[str, Any] = {"step": (index + 1) * stride}
        for name, column in columns.items():
            value = column(index / num_rows) if callable(column) else column
            row[name] = value + draw.normal(0, 0.02) * (name == "reward")
        rows.append(row)
    return rows


def falls(high: float, low: float, at: float = 0.5) -> Callable[[float], float]:
    return lambda done: high if done < at else low


def grows(low: float, high: float, start: float = 0.1, end: float = 0.5) -> Callable[[float], float]:
    return lambda done: low + (high - low) * min(1.0, max(0.0, (done - start) / (end - start)))


def outcome(found: Diagnosis, check: str) -> str:
    return next(item.outcome for item in found.checks if item.name == check)


def test_d1_runs_are_measured_in_steps_whatever_is_logged():
    healthy, collapsed = (diagnose(rows_of(stride=10, reward=reward)) for reward in (0.6, falls(0.6, 0.02)))
    assert (healthy.num_steps, healthy.num_rows) == (1200, 120)
    assert "1200 steps" in healthy.sentence
    assert lifetime(healthy) == Lifetime(steps=1200, is_collapsed=False)
    assert lifetime(collapsed).steps == pytest.approx(610, abs=20)
    assert "for 120 steps" in next(alarm.message for alarm in collapsed.alarms if alarm.detector == "drawdown")


def test_d1_a_cause_is_looked_for_in_steps():
    """Twenty rows before the fall is two hundred steps: a window of rows, taken for steps, would miss it."""
    rows = rows_of(stride=10, reward=falls(0.6, 0.02), **{"clip_ratio/region_mean": falls(0.01, 0.6, at=0.52)})
    assert diagnose(rows).kind == "off_policy"


@pytest.mark.parametrize(
    "columns",
    [
        {"reward_std": 0.0},
        {"zero_std_ratio": 1.0},
        {"frac_reward_zero_std": 1.0},
        {"critic/advantages/min": 0.0, "critic/advantages/max": 0.0},
        {"critic/score/min": 0.0, "critic/score/max": 0.0, "critic/score/mean": 0.0},
    ],
    ids=lambda columns: next(iter(columns)),
)
@pytest.mark.parametrize("height", [0.0, 0.7, -1.0])
def test_d2_a_run_without_spread_is_never_alive_at_any_height_under_any_name(columns, height):
    rows = [{**row, "reward": height} for row in rows_of(**columns)]
    assert diagnose(rows).kind == "never_alive"


def test_d2_a_reward_that_is_always_the_same_teaches_nothing():
    assert diagnose([{"step": step, "reward": 0.6} for step in range(40)]).kind == "never_alive"
    assert diagnose([{"step": step, "reward": 0.6, "reward_std": 0.2} for step in range(40)]).kind == "healthy"


def test_d2_few_groups_with_spread_that_still_teach_are_alive():
    assert diagnose(rows_of(reward=grows(0.02, 0.5), frac_reward_zero_std=0.93)).kind == "healthy"


@pytest.mark.parametrize(
    "columns",
    [
        {"frac_reward_zero_std": grows(0.2, 0.96)},
        {"reward_std": grows(0.4, 0.01)},
        {"critic/score/min": 0.0, "critic/score/max": 1.0, "critic/score/mean": grows(0.3, 0.99)},
    ],
    ids=lambda columns: next(iter(columns)),
)
def test_d3_saturated_is_told_from_the_spread(columns):
    found = diagnose(rows_of(reward=grows(0.3, 0.99), **columns))
    assert found.kind == "saturated"
    assert not found.is_collapsed


def alive_until(last: int, num_rows: int = 12, *, all_good: float = 0.1) -> Rows:
    """Steps with two of eight groups alive up to a step, and none from there on; the reward learns and then stands."""
    rows = []
    for step in range(num_rows):
        rises = {"reward": 0.1 + 0.2 * min(step, last) / last, "all_good": all_good if step >= last else 0.0}
        rows.append({"step": step, "frac_reward_zero_std": 0.75 if step < last else 1.0, **rises})
    return rows


def test_groups_that_all_lose_their_spread_are_starved_in_runs_of_any_length_and_at_the_peak_of_the_reward():
    """Success is known, so that a peak is no ceiling; counts of groups need no trend."""
    for rows in (alive_until(4), alive_until(10, 60)):
        found = diagnose(rows)
        assert (found.kind, found.is_collapsed) == ("starved", False)
        assert found.onset == rows[-1]["step"] + 1 - sum(row["frac_reward_zero_std"] == 1 for row in rows)
        assert outcome(found, "groups without spread, tasks unsolved") == "found"
    without = [{name: value for name, value in row.items() if name != "all_good"} for row in alive_until(4)]
    assert diagnose(without).kind == "too_short"


def test_what_looks_like_starving_and_is_not():
    dead = [{**row, "frac_reward_zero_std": 1.0} for row in alive_until(4)]
    comes_and_goes = [
        {**row, "frac_reward_zero_std": 0.875 if row["step"] in (0, 6) else 1.0} for row in alive_until(4)
    ]
    revived = [*alive_until(4), {"step": 12, "reward": 0.3, "frac_reward_zero_std": 0.75, "all_good": 0.1}]
    for rows in (dead, comes_and_goes, revived, alive_until(4, all_good=0.9), alive_until(9)):
        assert diagnose(rows).kind == "too_short"
    assert diagnose(alive_until(10, 60, all_good=0.95)).kind == "saturated"


def test_d3_groups_that_lose_their_spread_below_the_top_are_starved():
    found = diagnose(rows_of(reward=0.3, frac_reward_zero_std=grows(0.2, 0.97)))
    assert (found.kind, found.first_signal) == ("starved", "frac_reward_zero_std")
    assert not found.is_collapsed


def test_d4_a_run_that_ends_at_a_number_that_is_not_finite():
    rows = rows_of(40, reward=0.6, grad_norm=1.0)
    rows[-1]["grad_norm"] = float("nan")
    found = diagnose(rows)
    assert (found.kind, found.onset) == ("numerical", 40)
    assert diagnose(rows, is_over=False).kind == "healthy"


def test_d5_entropy_that_explodes_is_the_cause():
    found = diagnose(rows_of(reward=falls(0.6, 0.05, at=0.6), entropy=grows(0.3, 5, 0.5, 0.6)))
    assert (found.kind, found.first_signal) == ("entropy_explosion", "entropy")
    assert found.departures[0].step == pytest.approx(60, abs=5)


def test_d5_entropy_that_explodes_alone_is_worth_a_look():
    found = diagnose(rows_of(reward=0.6, entropy=grows(0.3, 5, 0.5, 0.6)))
    assert found.kind == "healthy"
    assert "Worth a look: entropy rose from 0.3 to" in found.sentence


def test_d5_the_old_name_of_the_clip_ratio():
    for name in ("clip_ratio", "clip_ratio/region_mean"):
        found = diagnose(rows_of(reward=falls(0.6, 0.02), **{name: falls(0.01, 0.9, at=0.48)}))
        assert (found.kind, found.first_signal) == ("off_policy", "clip_ratio/region_mean")


def test_what_drifts_in_runs_that_learn_is_no_cause_of_a_late_fall():
    """Length has doubled, and one gradient stood out, long before; what moves right before the fall is the cause."""
    background = {"completion_length": grows(200, 400, 0.0, 1.0), "grad_norm": lambda done: 80 if done == 0.25 else 1.0}
    fall = {"reward": falls(0.6, 0.02, at=0.8)}
    assert diagnose(rows_of(**fall, **background)).kind == "unexplained"
    found = diagnose(rows_of(**fall, **background, entropy=falls(1.0, 0.1, at=0.75)))
    assert (found.kind, found.first_signal) == ("concentration", "entropy")
    assert "entropy moved first" in found.sentence


@pytest.mark.parametrize("end", ["", "/mean"])
def test_d6_accuracy_that_dies_behind_a_format_reward(end):
    parts = {f"rewards/accuracy_reward{end}": falls(0.4, 0.0), f"rewards/format_reward{end}": grows(0.2, 1.0)}
    found = diagnose(rows_of(reward=grows(0.6, 1.0), **parts))
    assert (found.kind, found.first_signal) == ("reward_hacking", f"rewards/accuracy_reward{end}")
    assert found.is_collapsed
    assert f"while rewards/format_reward{end} rose" in found.sentence


def test_d6_a_bonus_for_brevity_that_goes_is_no_loss():
    parts = {"rewards/accuracy_reward/mean": grows(0.2, 0.9), "rewards/brevity/mean": falls(0.3, 0.0)}
    assert diagnose(rows_of(reward=grows(0.5, 0.9), **parts)).kind == "healthy"


def test_d6_a_part_that_goes_while_success_is_known_to_rise_costs_nothing():
    parts = {"rewards/hints/mean": falls(0.4, 0.0), "rewards/answer/mean": grows(0.2, 0.9)}
    rows = rows_of(reward=grows(0.6, 0.95), success=grows(0.2, 0.9), **parts)
    assert diagnose(rows).kind == "healthy"
    assert diagnose([{**row, "success": 0.3} for row in rows]).kind == "reward_hacking"


def test_d6_evaluation_that_falls_while_training_rises():
    rows = rows_of(reward=grows(0.5, 1.0), reward_std=0.1)
    scores = [0.6, 0.6, 0.6, 0.52, 0.44, 0.35, 0.27, 0.18, 0.09, 0.05, 0.05, 0.05]
    rows += [{"step": 10 * (index + 1), "eval_reward": score} for index, score in enumerate(scores)]
    found = diagnose(one_a_step(sorted(rows, key=lambda row: row["step"])))
    assert (found.kind, found.first_signal) == ("overfitting", "eval_reward")
    assert found.onset == 40
    assert found.num_steps == 120


def test_d6_evaluation_that_falls_with_training_is_an_ordinary_collapse():
    rows = rows_of(reward=falls(0.6, 0.05))
    for index, score in enumerate([0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.1, 0.1, 0.1, 0.1]):
        rows[12 * index]["eval_reward"] = score
    assert diagnose(rows).kind == "unexplained"


def test_d8_completions_that_come_to_fill_the_cap():
    found = diagnose(rows_of(40, stride=5, reward=falls(0.7, 0.6), **{"completions/clipped_ratio": grows(0.5, 0.98)}))
    assert (found.kind, found.first_signal) == ("truncated", "cut_share")
    assert not found.is_collapsed
    fallen = diagnose(rows_of(reward=falls(0.7, 0.1), **{"response_length/clip_ratio": grows(0.1, 0.98, 0.3, 0.5)}))
    assert (fallen.kind, fallen.first_signal) == ("drift", "cut_share")


def test_d8_a_task_that_fills_the_cap_and_is_learned_is_left_alone():
    assert diagnose(rows_of(reward=grows(0.2, 0.9), **{"completions/clipped_ratio": 1.0})).kind == "healthy"


def test_d9_a_check_without_all_of_its_data_says_so():
    found = diagnose(rows_of(reward=0.6, frac_reward_zero_std=0.3))
    assert outcome(found, "groups without different completions") == "no data"
    assert outcome(found, "a part of the reward lost behind a growing one") == "no data"
    assert outcome(found, "every group succeeds") == "not found"
    assert {check.outcome for check in diagnose([{"step": step, "loss": 1.0} for step in range(40)]).checks} == {
        "no data",
        "not found",
    }


def test_d10_of_a_step_that_was_run_twice_the_later_one_counts():
    """The first attempt went bad at step 60 and was stopped at 80; the run went on from the checkpoint of step 40."""
    rows = rows_of(120, reward=grows(0.5, 0.8))
    bad = [{**row, "reward": 0.02} if row["step"] > 60 else row for row in rows[:80]]
    assert one_a_step([*bad, *rows[40:]]) == rows
    assert one_a_step([*bad, *rows[40:50]]) == rows[:50]


@pytest.mark.parametrize(
    ("reward", "kind"),
    [
        (grows(-5.0, -5.5, 0.5, 0.6), "healthy"),
        (grows(5.0, 4.5, 0.5, 0.6), "healthy"),
        (falls(-0.25, -1.0), "unexplained"),
        (lambda done: -1.0 + 3 * done if done < 0.6 else -0.9, "unexplained"),
        (lambda done: -1.0 + 1.5 * min(done, 0.7) if done < 0.8 else -0.1, "healthy"),
    ],
    ids=["slides a tenth", "the same above zero", "loses thrice its height", "rises above zero and falls", "dips"],
)
def test_d11_rewards_below_zero(reward, kind):
    assert diagnose(rows_of(reward=reward)).kind == kind
