"""Flat groups are replaced by groups of other tasks: bounded, counted, and never without being asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_rl.errors import ConfigError
from dllm_rl.files import read_rows
from dllm_rl.records.rollout import Rollout
from dllm_rl.records.tasks import Fault, RewardRecord
from dllm_rl.testing.reward import NOTHING, SUCCESS
from dllm_rl.training.groups import _why_flat
from experiments.design.grid import build_cells
from tests.dllm_rl.training.test_trainer import CountingEnvironment, flat, make, same, share_of_e, weights
from tests.experiments.grids import preset

ONE_STEP = {"steps": 1, "prompts_per_step": 2, "group_size": 4, "options": {"beta": 0.0}}


def flat_for(*numbers: int):
    """A reward that is the same for all rollouts of the tasks of these numbers."""
    ends = tuple(f"toy-{number}" for number in numbers)
    return lambda outcome: flat(outcome) if outcome.task_id.endswith(ends) else share_of_e(outcome)


def first_tasks(trainer) -> list[int]:
    return [int(task.id[-1]) for task in trainer._tasks_of(0)]


@pytest.mark.parametrize("family", ["masked", "slot", "flow", "autoregressive"])
def test_a_flat_group_is_replaced_by_a_group_of_the_task_that_was_not_drawn(tmp_path, family) -> None:
    probe = make(family, "dapo", tmp_path / "probe", **ONE_STEP)
    one, _ = first_tasks(probe)
    trainer = make(family, "dapo", tmp_path / "a", reward=flat_for(one), resample_rounds=3, **ONE_STEP)
    trainer.train()
    row = read_rows(tmp_path / "a" / "metrics.jsonl")[0]
    assert (row["resampled/flat_groups"], row["resampled/groups_replaced"]) == (1.0, 1.0)
    assert (row["resampled/rounds"], row["resampled/rollouts"], row["num_rollouts"]) == (1.0, 4.0, 8.0)
    assert (row["rows_updated"], row["rows_filtered"], row["ratio_dev_u0"]) == (8.0, 0.0, 0.0)
    logged = [record["task_id"] for record in read_rows(tmp_path / "a" / "rollouts.jsonl")]
    (other,) = {0, 1, 2} - set(first_tasks(trainer))
    assert len(logged) == 12 and logged[8:] == [f"train/toy-{other}"] * 4


def test_metrics_of_the_rollouts_stay_those_of_the_first_draw(tmp_path) -> None:
    probe = make("masked", "dapo", tmp_path / "probe", **ONE_STEP)
    reward = flat_for(first_tasks(probe)[0])
    rows = []
    for rounds in (0, 2):
        make("masked", "dapo", tmp_path / str(rounds), reward=reward, resample_rounds=rounds, **ONE_STEP).train()
        rows.append(read_rows(tmp_path / str(rounds) / "metrics.jsonl")[0])
    for name in ("reward", "frac_reward_zero_std", "unique_completions", "entropy", "num_rollouts"):
        assert rows[0][name] == rows[1][name]
    assert (rows[0]["rows_updated"], rows[1]["rows_updated"]) == (4.0, 8.0)
    assert not any(name.startswith("resampled/") for name in rows[0])


def test_it_ends_with_its_rounds_and_with_the_tasks(tmp_path) -> None:
    environment = CountingEnvironment()
    trainer = make("masked", "dapo", tmp_path, reward=flat, environment=environment, resample_rounds=9, **ONE_STEP)
    before = weights(trainer)
    trainer.train()
    row = read_rows(tmp_path / "metrics.jsonl")[0]
    assert (row["resampled/flat_groups"], row["resampled/groups_replaced"], row["resampled/rounds"]) == (2.0, 0.0, 1.0)
    assert sum(row[f"resampled/flat_{why}"] for why in ("succeeded", "failed", "mixed", "lost")) == 2.0
    assert environment.calls == 2, "one task was left to try"
    assert row["rows_updated"] == 0 and same(before, weights(trainer))


def test_a_resumed_run_draws_the_same(tmp_path) -> None:
    probe = make("masked", "dapo", tmp_path / "probe", **ONE_STEP)
    settings = {**ONE_STEP, "steps": 2, "checkpoint_every": 1, "resample_rounds": 1}
    reward = flat_for(first_tasks(probe)[0])
    straight, broken = (make("masked", "dapo", tmp_path / name, reward=reward, **settings) for name in "ab")
    straight.train()
    broken.train(until=1)
    resumed = make("masked", "dapo", tmp_path / "b", reward=reward, **settings)
    resumed.train()
    assert same(weights(straight), weights(resumed))
    assert read_rows(tmp_path / "a" / "rollouts.jsonl") == read_rows(tmp_path / "b" / "rollouts.jsonl")


def test_it_is_refused_where_flat_groups_have_a_gradient(tmp_path) -> None:
    with pytest.raises(ConfigError, match="Set beta=0"):
        make("masked", "grpo", tmp_path, options={"beta": 0.1}, resample_rounds=1)


def test_a_grid_refuses_it_unless_the_factors_declare_it(tmp_path) -> None:
    setting = "train.resample_rounds=2"
    with pytest.raises(ConfigError, match="not be compared at equal cost"):
        build_cells(preset(tmp_path, setting))
    declared = "factors.objective=[objective,train.resample_rounds]"
    assert {cell.train["resample_rounds"] for cell in build_cells(preset(tmp_path, setting, declared))} == {2}


def test_flat_groups_are_counted_by_their_reason() -> None:
    lost = replace(NOTHING.outcome, fault=Fault.ENVIRONMENT)
    good, bad, gone = (
        Rollout(
            task=SUCCESS.task,
            turns=(),
            outcome=outcome,
            reward=RewardRecord(value=0.5, submission=False, field_accuracy=0.0, progress=0.0),
        )
        for outcome in (SUCCESS.outcome, NOTHING.outcome, lost)
    )
    groups = [[good, good], [bad, bad], [bad, gone], [good, bad], [gone, gone], []]
    assert _why_flat(groups) == {"succeeded": 1, "failed": 2, "mixed": 1, "lost": 2}
