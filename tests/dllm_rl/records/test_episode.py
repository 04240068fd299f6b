"""One record of a rollout: one spelling, one success, one length, one temperature; several turns fit."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from dllm_rl import registry
from dllm_rl.episodes import given, oracle, play
from dllm_rl.errors import ConfigError
from dllm_rl.records.rollout import Completion, Rollout, one_turn, rewarded
from dllm_rl.records.tasks import Control, FieldResult, Outcome
from dllm_rl.reward import FromFunction
from dllm_rl.training.config import TrainConfig
from dllm_rl.training.engine import RolloutEngine, evaluate
from dllm_rl.training.groups import stack_rollouts
from dllm_rl.training.trainer import Trainer
from experiments.cli.replay import compare
from experiments.design.config import Component, build_reward, build_session
from experiments.run.results import SCHEMA
from experiments.run.snapshots import take_snapshot
from harness.rewards import Shaped, Success, Tree
from tests.dllm_rl.training.test_trainer import PAGE, TASKS, CountingEnvironment, make, rollouts_of, share_of_e
from tests.tiny_policies import make_tiny_policy

FAMILIES = {"masked": "low_confidence", "slot": "slots", "flow": "flow_exact", "autoregressive": "ar"}


class WithButton(CountingEnvironment):
    """A page that the grammar accepts plans for."""

    def observe_many(self, tasks):
        button = Control(ref="p1.e2", kind="button", name="Join")
        return [replace(PAGE, controls=(*PAGE.controls, button)) for _ in tasks]


def engine_of(family="masked", **options) -> RolloutEngine:
    sampler = registry.get("sampler", FAMILIES[family])(**options)
    policy = make_tiny_policy(family, sharpness=4.0)
    return RolloutEngine(policy=policy, sampler=sampler, environment=WithButton(), reward=FromFunction(share_of_e))


def test_every_writer_spells_a_rollout_alike(tmp_path) -> None:
    """rollouts.jsonl, results.parquet, snapshots and gold plans have the columns of one row; replay compares them."""
    policy = make_tiny_policy("masked")
    columns = {"step", "row"}, {"mode", "sample"}, {"mode", "sample", "film", "instruction"}, {"mode"}
    with build_session(Component(name="toy_copy")) as session:
        sampler = registry.get("sampler", "low_confidence")(num_steps=4)
        reward = build_reward(Component(name="outcome"))
        engine = RolloutEngine(policy=policy, sampler=sampler, environment=session, reward=reward)
        tasks = session.tasks("val")[:3]
        config = TrainConfig(steps=1, prompts_per_step=2, group_size=2)  # type: ignore[call-arg]
        objective = registry.build("objective", "grpo", {"beta": 0.0})
        Trainer(engine=engine, objective=objective, tasks=tasks, config=config, run_dir=tmp_path).train()
        take_snapshot(tmp_path, 1, engine=engine, tasks=tasks, seed=0)
        gold = play(session, reward, tasks, oracle(session))
        written = [
            json.loads((tmp_path / "rollouts.jsonl").read_text().splitlines()[0]),
            evaluate(engine, tasks, num_samples=1, seed=0)[0],
            json.loads((tmp_path / "waypoints" / "step1.json").read_text())["rows"][0],
            gold[0].to_row(mode="oracle"),
        ]
    plain = set(gold[0].to_row())
    assert [set(row) - plain for row in written] == list(columns)
    assert all(plain <= set(row) for row in written)
    assert plain <= set(SCHEMA.names)
    assert [rollout.to_row()["success"] for rollout in gold] == [True] * 3
    row = gold[0].to_row()
    assert compare(row, {**row, "seconds": 9.0}) == {}
    assert compare(row, {**row, "progress": 0.5}) == {"progress": (1.0, 0.5)}


def test_success_asks_for_a_change_whoever_tells_it() -> None:
    """Sending off a form that already held what was wanted is not a success, for the outcome and for every reward."""
    held = FieldResult(name="f", wanted=("a",), server=("a",), dom=("a",), is_correct=True, is_default=True)
    outcome = Outcome(task_id="t", is_submitted=True, fields=(held,))
    attempt = one_turn(TASKS[0], PAGE, Completion(plan=""), outcome)
    rows = [rewarded(cls(), [attempt])[0].to_row() for cls in (Shaped, Success, Tree)]
    assert [(row["success"], row["reward"]) for row in rows] == [(False, 0.0)] * 3
    changed = replace(outcome, fields=(replace(held, is_default=False),))
    assert changed.is_success and Success()(changed) == 1.0


@pytest.mark.parametrize("grammar", [False, True])
def test_the_length_of_a_plan_is_that_of_its_text_with_and_without_a_grammar(grammar) -> None:
    """Forced tokens are not scored, but they are part of what was written."""
    engine = engine_of(grammar=grammar)
    batch = engine.run(TASKS, range(3), seed=0)
    sampled = batch.rollouts[0].turns[0].completion.sampled
    assert sampled is not None
    wanted = engine.policy.canvas.visible(sampled.completions.ids).sum(dim=1).tolist()
    assert [rollout.num_tokens for rollout in batch.rollouts] == wanted
    if grammar:
        assert sampled.completions.mask.sum() < sum(wanted), "the grammar forced nothing: this test shows nothing"


def test_a_sampler_at_another_temperature_than_the_configuration_is_refused(tmp_path) -> None:
    trainer = make("masked", "grpo", tmp_path)
    with pytest.raises(ConfigError, match=r"0\.3 and train\.temperature is 1"):
        Trainer(
            engine=trainer.engine.at_temperature(0.3),
            objective=trainer.objective,
            tasks=TASKS,
            config=TrainConfig(),  # type: ignore[call-arg]
            run_dir=tmp_path,
        )


def test_scores_are_divided_by_the_temperature_of_the_sampler() -> None:
    assert rollouts_of(engine_of(temperature=0.7), TASKS).temperature == 0.7


def a_batch(engine: RolloutEngine, tasks, first: int) -> tuple[Rollout, ...]:
    return engine.run(tasks, range(first, first + len(tasks)), seed=first).rollouts


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("grammar", [False, True])
def test_rollouts_of_several_batches_score_as_their_parts(family, grammar) -> None:
    engine = engine_of(family, grammar=grammar)
    policy = engine.policy
    first, second = a_batch(engine, TASKS[:2], 0), a_batch(engine, TASKS[1:], 2)

    def scored(*groups):
        rollouts = stack_rollouts(groups, temperature=1.0, pad_id=policy.canvas.pad_id)
        with torch.no_grad():
            views = policy.process.replay(rollouts, torch.Generator().manual_seed(0))
            return rollouts, policy.view_log_probs(rollouts, views).sum(0)

    stacked, together = scored(first, second)
    assert stacked.group_ids.tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(together, torch.cat([scored(first)[1], scored(second)[1]]), atol=1e-5, rtol=1e-4)
    chosen, _ = scored((second[1], first[0]))
    assert torch.equal(chosen.completion_ids, stacked.completion_ids[[3, 0]])


def test_an_episode_of_several_turns_is_a_row_a_turn_and_one_reward() -> None:
    engine = engine_of()
    one, two = a_batch(engine, TASKS[:2], 0)
    episode = replace(one, turns=(*one.turns, *two.turns))
    rollouts = stack_rollouts([(episode, two)], temperature=1.0, pad_id=engine.policy.canvas.pad_id)
    assert rollouts.num_rows == 3 and rollouts.group_ids.tolist() == [0, 0, 0]
    assert rollouts.rewards.tolist() == pytest.approx([one.reward.value, one.reward.value, two.reward.value])
    row = episode.to_row()
    assert row["plan"] == f"{one.plan}\n{two.plan}" and row["num_tokens"] == one.num_tokens + two.num_tokens


def test_a_plan_that_was_not_sampled_is_not_trained_on() -> None:
    writer = given([Completion(plan="submit p1.e2")])
    written = play(CountingEnvironment(), FromFunction(share_of_e), TASKS[:1], writer)
    with pytest.raises(ConfigError, match="only what a policy sampled"):
        stack_rollouts([written], temperature=1.0, pad_id=0)


@pytest.mark.parametrize("module", ["harness", "harness.rewards", "dllm_rl.records.rollout", "dllm_rl.protocols"])
def test_the_record_and_the_harness_need_no_torch(module) -> None:
    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
