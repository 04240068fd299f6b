"""Estimates of time against runs whose wall time is in the lab notebook, and what they must count."""

from __future__ import annotations

import pytest

from experiments.design.components import build_session
from experiments.design.config import load_preset
from experiments.design.costs import BROWSER_START_SECONDS, REPORT_SECONDS, WAYPOINT_SECONDS
from experiments.design.units import TaskSets, plan_grid


def planned(tmp_path, name, *overrides):
    preset = load_preset(name, list(overrides))
    with build_session(preset.environment) as session:
        return plan_grid(preset, TaskSets.of(preset, session), tmp_path)


@pytest.mark.parametrize(("name", "minutes"), [("positive_control", 35.4), ("quick", 17.2), ("study16_quick", 18.1)])
def test_an_estimate_is_within_a_quarter_of_what_the_run_took(tmp_path, name, minutes) -> None:
    seconds = planned(tmp_path, name).cost.seconds + BROWSER_START_SECONDS + REPORT_SECONDS
    assert seconds / 60 == pytest.approx(minutes, rel=0.25)


def test_waypoints_of_the_first_seed_and_of_warm_starts_are_counted_in_time_alone(tmp_path) -> None:
    units = {unit.name: unit.cost for unit in planned(tmp_path, "positive_control").units}
    first, second = (units[f"positive-autoregressive-grpo seed {seed}"] for seed in (0, 1))
    assert first.seconds - second.seconds == pytest.approx(4 * WAYPOINT_SECONDS)
    assert first.evaluation_rollouts == second.evaluation_rollouts == 600


def test_one_thread_takes_longer_and_arenas_less(tmp_path) -> None:
    one, two, contexts = (
        planned(tmp_path, "grid16", "policies=[masked]", "controls=[]", *overrides).cost.seconds
        for overrides in ((), ("threads=2",), ("environment.options.isolation=context",))
    )
    assert two < one < contexts
