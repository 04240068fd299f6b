"""Why a cell does not convert: each cause on rows that show it, in the order in which one hides the next."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import torch

from dllm_rl.training.conversion import conversion_metrics
from experiments.analysis.collapse import diagnose
from experiments.analysis.conversion import TrainedSeed, conversion_of
from experiments.analysis.pairing import Summary, summarise
from tests.dllm_rl.training.test_conversion import outcome


def summary(conversion: float | None, right: float | None = 0.4) -> Summary:
    rest = dict.fromkeys(("success", "reward", "field_accuracy", "submitted", "near_miss", "parsed"))
    return Summary(num_rollouts=100, lost=0, unjudged=0, right=right, conversion=conversion, **rest)


def seed(num_steps: int = 12, **columns: Any) -> TrainedSeed:
    """A short run that has signal; a column is a number, or a function of the step."""
    usual = {"reward": 0.1, "right": 0.4, "frac_reward_zero_std": 0.5, "right_mixed_groups": 0.6, "all_good": 0.0}
    rows = [
        {"step": step, **{name: value(step) if callable(value) else value for name, value in (usual | columns).items()}}
        for step in range(num_steps)
    ]
    return TrainedSeed(metrics=rows, diagnosis=diagnose(rows))


LOW = summary(0.2)


def reason(*seeds: TrainedSeed) -> str:
    return conversion_of(LOW, LOW, seeds).reason


@pytest.mark.parametrize(
    ("columns", "begins"),
    [
        ({"ratio_dev_u0": 0.4, "frac_reward_zero_std": 1.0}, "Estimator noise"),
        ({"right": 0.0}, "Nothing to convert"),
        ({"frac_reward_zero_std": lambda step: 0.5 if step < 4 else 1.0}, "No signal: no group had spread in 8 of 12"),
        ({"ratio/far_share": 0.3}, "Off-policy blow-up: 30%"),
        ({"right_mixed_groups": 0.1, "right_within_share": 0.2}, "Little signal about the finish: 10%"),
        ({"right_within_share": 0.9}, "There was signal (60% of the groups with right plans were mixed, within-group"),
    ],
)
def test_each_cause_is_told_from_the_rows_that_show_it(columns, begins):
    assert reason(seed(**columns)).startswith(begins)


def test_a_run_that_starved_is_called_so():
    assert "(starved)" in reason(seed(frac_reward_zero_std=lambda step: 0.5 if step < 4 else 1.0))


def test_a_collapse_is_told_by_the_diagnosis():
    falls = seed(60, reward=lambda step: 0.6 if step < 30 else 0.0, unique_completions=lambda s: 0.9 if s < 25 else 0.2)
    assert reason(falls) == falls.diagnosis.sentence
    assert falls.diagnosis.kind == "concentration"


def test_a_cell_has_the_cause_of_most_of_its_seeds():
    told = reason(seed(), seed(right_mixed_groups=0.1), seed(right_mixed_groups=0.0))
    assert told.startswith("Little signal") and "10%" in told and told.endswith("(2 of 3 seeds; figures of the first)")


def test_what_converts_needs_no_reason():
    assert conversion_of(LOW, summary(0.93), [seed()]).state == "converts"
    assert conversion_of(summary(0.95), summary(0.9), [seed()]).state == "converted at the start"
    assert conversion_of(LOW, summary(None), [seed(right=0.0)]).state == "nothing right"
    owed = conversion_of(LOW, summary(None, right=None), [seed()])
    assert (owed.state, owed.reason) == ("untold", "")


def test_a_cell_that_converted_only_at_the_start_lost_its_finish():
    lost = conversion_of(summary(0.95), LOW, [seed(**{"ratio/far_share": 0.3})])
    assert lost.state == "lost its finish" and lost.reason.startswith("Off-policy blow-up")
    assert conversion_of(summary(0.95), summary(None), [seed()]).state == "nothing right"
    assert conversion_of(summary(0.95), summary(None, right=None), []).state == "untold"


RIGHT, NEAR = outcome(is_right=True, is_submitted=True), outcome(is_right=True, is_submitted=False)
WRONG, UNCLEAN = outcome(is_right=False, is_submitted=True), outcome(is_right=True, is_submitted=True, is_clean=False)


def test_evaluation_and_training_count_alike():
    """An accepted plan that fills in what nobody asked has every field right, and is not a right plan."""
    outcomes = [RIGHT, NEAR, NEAR, WRONG, UNCLEAN, UNCLEAN]
    rows = pa.table(
        {
            "fault": ["none"] * len(outcomes),
            "reward": [0.0] * len(outcomes),
            "field_accuracy": [float(item.all_correct) for item in outcomes],
            "parsed": [True] * len(outcomes),
            "submitted": [item.is_submitted for item in outcomes],
            "success": [item.is_success for item in outcomes],
            "near_miss": [item.is_near_miss for item in outcomes],
        }
    )
    evaluated = summarise(rows)
    trained = conversion_metrics(outcomes, torch.zeros(len(outcomes), dtype=torch.long))
    for name in ("right", "near_miss", "conversion"):
        assert getattr(evaluated, name) == pytest.approx(trained[name])
    assert evaluated.conversion == pytest.approx(1 / 3)


def test_runs_without_these_metrics_have_no_reason():
    bare = TrainedSeed(metrics=[{"step": 0, "reward": 0.1}], diagnosis=diagnose([{"step": 0, "reward": 0.1}]))
    assert conversion_of(LOW, LOW, [bare]).reason == ""
