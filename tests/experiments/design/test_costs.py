"""What estimates of time must count."""

from __future__ import annotations

import pytest

from experiments.design.config import build_session
from experiments.design.costs import SNAPSHOT_SECONDS
from experiments.design.presets import load_preset
from experiments.design.units import TaskSets, plan_grid


def planned(tmp_path, name, *overrides):
    preset = load_preset(name, list(overrides))
    with build_session(preset.environment) as session:
        return plan_grid(preset, TaskSets.of(preset, session), tmp_path)


def test_snapshots_of_the_first_seed_and_of_warm_starts_are_counted_in_time_alone(tmp_path) -> None:
    units = {unit.name: unit.cost for unit in planned(tmp_path, "positive_control").units}
    first, second = (units[f"autoregressive-grpo seed {seed}"] for seed in (0, 1))
    assert first.seconds - second.seconds == pytest.approx(4 * SNAPSHOT_SECONDS)
    assert first.evaluation_rollouts == second.evaluation_rollouts == 60 * 3


def test_one_thread_takes_longer_and_arenas_less(tmp_path) -> None:
    one, two, contexts = (
        planned(tmp_path, "grid16", "policies=[masked]", "controls=[]", *overrides).cost.seconds
        for overrides in ((), ("threads=2",), ("environment.options.isolation=context",))
    )
    assert two < one < contexts


def test_roles_take_a_call_each_and_the_browser_once(tmp_path) -> None:
    cells = ("policies=[masked]", "objectives=[grpo]", "controls=[]", "environment={name: episodes}", "reward=outcome")

    def seconds(roles: str) -> float:
        return planned(tmp_path, "quick", *cells, f"policies.masked.roles={roles}").cost.seconds

    written, alone, two, five = (
        seconds(roles) for roles in ("null", "{reflector: false, grounder: false}", "{grounder: false}", "{}")
    )
    assert written == alone
    assert five - two == pytest.approx(3 * (two - alone))


def test_plans_that_are_not_run_again_take_no_browser(tmp_path) -> None:
    cells = ("policies=[masked]", "objectives=[grpo]", "controls=[]", "seeds=[0]")
    kept, run = (
        {unit.is_warm_start: unit.cost for unit in planned(tmp_path, "grid16", *cells, *overrides).units}
        for overrides in ((), ("environment.options.caches_outcomes=false",))
    )
    assert kept[False].seconds < 0.7 * run[False].seconds
    assert kept[False].train_rollouts == run[False].train_rollouts
    assert kept[True] == run[True], "nothing was executed before a warm start"


def test_an_update_costs_what_its_views_do_whatever_the_objective_is_called(tmp_path) -> None:
    def seconds(objective: str, options: str = "{}") -> float:
        level = f"objectives.a={{name: {objective}, options: {options}}}"
        cells = (level, "objectives=[a]", "policies=[masked]", "controls=[]", "seeds=[0]")
        (unit,) = [unit for unit in planned(tmp_path, "quick", *cells).units if not unit.is_warm_start]
        return unit.cost.seconds

    one, two, eight = (seconds("bgpo", f"{{num_draws: {draws}}}") for draws in (1, 2, 8))
    assert eight - one == pytest.approx(7 * (two - one))
    assert seconds("cj_grpo", "{num_steps: 8}") == pytest.approx(eight)
    assert seconds("cj_grpo", "{num_steps: null}") > eight
