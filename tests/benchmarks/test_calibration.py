"""The calibration reads plans as the server would, and its spread over tasks is not that of few plans a task."""

from __future__ import annotations

import pytest
import torch

from benchmarks.calibration import Case, at_the_decision, judged, spread
from dllm_rl.policies.loading import load_policy
from harness.sites import OBSTACLES, make_tasks


def cases(obstacle: str, count: int = 16) -> list[Case]:
    return [Case.of(task) for task in make_tasks("val", count=count, obstacles=(obstacle,))]  # type: ignore[arg-type]


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_gold_is_finished_and_the_older_recording_is_right_alone(obstacle: str) -> None:
    own = cases(obstacle)
    right, done = judged(own, [[case.gold, case.unfinished, ""] for case in own])
    assert right.tolist() == [[True, True, False]] * len(own)
    assert done.tolist() == [[True, False, False]] * len(own)


def test_order_of_fields_does_not_count_and_a_wrong_value_does() -> None:
    (case,) = cases("second_button", 1)
    *fields, last = case.gold.splitlines()
    swapped = "\n".join([*reversed(fields), last])
    spoilt = case.gold.replace(' "', ' "x', 1)
    right, done = judged([case], [[swapped, spoilt, "\n".join(fields)]])
    assert right.tolist() == [[True, False, True]]
    assert done.tolist() == [[True, True, False]]


def test_the_spread_over_tasks_is_free_of_the_spread_of_draws() -> None:
    every = torch.ones(2000, 8, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    coin = torch.rand(every.shape, generator=generator)
    assert spread(every, coin < 0.3) == pytest.approx(0.0, abs=0.06)
    of_task = torch.rand(2000, 1, generator=generator) < 0.5
    assert spread(every, of_task.expand(-1, 8)) == pytest.approx(0.5, abs=0.02)
    assert spread(every, coin < torch.where(of_task, 0.5, 0.1)) == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("family", ["autoregressive", "masked", "flow"])
def test_the_decision_is_a_probability_on_tasks_where_one_column_decides(family: str) -> None:
    found = at_the_decision(load_policy(f"builtin:{family}"), cases("second_button"))
    assert len(found) >= 8
    assert ((found >= 0) & (found <= 1)).all()
    assert torch.isnan(at_the_decision(load_policy(f"builtin:{family}"), cases("review", 4))).all()
