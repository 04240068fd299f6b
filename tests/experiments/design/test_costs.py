"""What estimates of time must count."""

from __future__ import annotations

import pytest

from experiments.design.components import build_session
from experiments.design.config import load_preset
from experiments.design.costs import WAYPOINT_SECONDS
from experiments.design.units import TaskSets, plan_grid


def planned(tmp_path, name, *overrides):
    preset = load_preset(name, list(overrides))
    with build_session(preset.environment) as session:
        return plan_grid(preset, TaskSets.of(preset, session), tmp_path)


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
