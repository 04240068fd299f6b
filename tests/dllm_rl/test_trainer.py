"""The loop's promises on every family and objective: on policy at the start, exact resume, faults masked."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import torch

from dllm_rl import registry
from dllm_rl.errors import CheckpointError, ConfigError
from dllm_rl.rollout import collect
from dllm_rl.tasks import Control, Fault, Outcome, Page, Task
from dllm_rl.tracking import append_rows, read_rows
from dllm_rl.trainer import TrainConfig, Trainer
from objectives import build_objective
from samplers import DEFAULT_SAMPLERS
from tests.tiny_policies import make_tiny_policy

FAMILIES = ("autoregressive", "masked", "slot", "flow")
OBJECTIVES = ("grpo", "cj_grpo", "gspo", "espo")
PAGE = Page(titles=("Join",), controls=(Control(ref="p1.e1", kind="text", name="Name"),))
TASKS = [
    Task(id=f"train/toy-{i}", split="train", site="toy", instruction=f"Name: {name}", gold=())
    for i, name in enumerate(("Anna", "Karl", "Rome"))
]


class CountingEnvironment:
    """Text only: the reward is the share of the letter e among the characters; a fault wherever `lost` says so."""

    def __init__(self, lost=lambda call, row: False):
        self.lost, self.calls, self.seen = lost, 0, []

    def observe_many(self, tasks):
        return [PAGE for _ in tasks]

    def run_many(self, pairs, **settings):
        self.calls += 1
        self.seen.append([plan for _, plan in pairs])
        return [self._outcome(task, plan, row) for row, (task, plan) in enumerate(pairs)]

    def _outcome(self, task, plan, row):
        fault = Fault.ENVIRONMENT if self.lost(self.calls, row) else Fault.NONE
        share = sum(plan.count(letter) for letter in "e1.") / max(1, len(plan))
        return Outcome(task_id=task.id, fault=fault, fault_reason=str(share))


def share_of_e(outcome):
    value = float(outcome.fault_reason)
    return SimpleNamespace(
        value=value, submission=0.0, field_accuracy=0.0, progress=0.0, is_success=value > 0.3, is_near_miss=False
    )


def flat(outcome):
    return SimpleNamespace(**{**vars(share_of_e(outcome)), "value": 0.5})


def make(family, objective, run_dir, *, environment=None, reward=share_of_e, **settings):
    config = {"steps": 2, "prompts_per_step": 2, "group_size": 4, "inner_steps": 2, "learning_rate": 1e-3} | settings
    sampler = registry.get("sampler", DEFAULT_SAMPLERS[family])()
    environment = environment or CountingEnvironment()
    return Trainer(
        policy=make_tiny_policy(family, sharpness=4.0),
        sampler=sampler,
        objective=build_objective(objective, {}),
        environment=environment,
        reward=reward,
        tasks=TASKS,
        config=TrainConfig(**config),
        run_dir=run_dir,
    )


def weights(trainer):
    return {name: value.clone() for name, value in trainer.policy.model.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("family", FAMILIES)
def test_first_ratio_is_exactly_one_and_weights_move(tmp_path, family, objective):
    trainer = make(family, objective, tmp_path)
    before = weights(trainer)
    trainer.train()
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1]
    assert all(row["ratio_dev_u0"] == 0.0 for row in rows)
    assert not same(before, weights(trainer))
    assert all(row["grad_norm"] > 0 for row in rows)


def test_resume_is_bit_identical_after_any_interruption(tmp_path):
    """Killed in the middle of a step: metrics of that step may be there already, torn; the same command repairs it."""
    straight = make("masked", "espo", tmp_path / "a", steps=4, checkpoint_every=2)
    straight.train()
    broken = make("masked", "espo", tmp_path / "b", steps=4, checkpoint_every=2)

    def stop(row):
        if row["step"] == 2:
            raise KeyboardInterrupt

    broken.on_step = stop
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    with (tmp_path / "b" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "rew')
    resumed = make("masked", "espo", tmp_path / "b", steps=4, checkpoint_every=2)
    resumed.train()
    assert same(weights(straight), weights(resumed))
    timeless = [
        [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in read_rows(path / "metrics.jsonl")]
        for path in (tmp_path / "a", tmp_path / "b")
    ]
    assert timeless[0] == timeless[1]
    assert [row["step"] for row in timeless[1]] == [0, 1, 2, 3]
    assert read_rows(tmp_path / "a" / "rollouts.jsonl") == read_rows(tmp_path / "b" / "rollouts.jsonl")


def test_a_finished_run_does_nothing_more(tmp_path):
    make("autoregressive", "grpo", tmp_path).train()
    environment = CountingEnvironment()
    make("autoregressive", "grpo", tmp_path, environment=environment).train()
    assert environment.calls == 0


def test_a_damaged_training_checkpoint_is_refused(tmp_path):
    make("autoregressive", "grpo", tmp_path).train()
    path = tmp_path / "checkpoint" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\1\2\3")
    with pytest.raises(CheckpointError, match="hash"):
        make("autoregressive", "grpo", tmp_path, steps=3).train()


def test_a_kill_between_the_two_renames_of_a_checkpoint_loses_nothing(tmp_path):
    make("autoregressive", "grpo", tmp_path).train()
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")
    environment = CountingEnvironment()
    make("autoregressive", "grpo", tmp_path, environment=environment).train()
    assert environment.calls == 0


def test_groups_without_variance_are_filtered_and_leave_the_weights_alone(tmp_path):
    trainer = make("masked", "grpo", tmp_path, reward=flat)
    before = weights(trainer)
    trainer.train()
    assert same(before, weights(trainer))
    row = read_rows(tmp_path / "metrics.jsonl")[0]
    assert (row["rows_updated"], row["rows_filtered"], row["frac_reward_zero_std"]) == (0.0, 8.0, 1.0)


def test_learning_rate_zero_changes_nothing(tmp_path):
    trainer = make("flow", "espo", tmp_path, learning_rate=0.0)
    before = weights(trainer)
    trainer.train()
    assert same(before, weights(trainer))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"lr_scheduler_type": "linear"}, [1.0, 0.75, 0.5, 0.25]),
        ({"lr_scheduler_type": "linear", "warmup_steps": 2}, [0.5, 1.0, 1.0, 0.5]),
        ({"warmup_steps": 2}, [0.5, 1.0, 1.0, 1.0]),
    ],
)
def test_learning_rate_follows_its_schedule(tmp_path, settings, expected):
    trainer = make("flow", "grpo", tmp_path, steps=4, learning_rate=1e-3, **settings)
    trainer.train()
    rates = [row["learning_rate"] for row in read_rows(tmp_path / "metrics.jsonl")]
    assert rates == pytest.approx([1e-3 * share for share in expected])


def test_adam_epsilon_holds_back_what_has_almost_no_gradient(tmp_path):
    """With the usual epsilon AdamW moves every weight by the rate; with one above the gradients it hardly moves any."""
    moved = []
    for epsilon in (1e-8, 100.0):
        trainer = make("masked", "grpo", tmp_path / str(epsilon), steps=1, adam_epsilon=epsilon)
        before = weights(trainer)
        trainer.train()
        moved.append(max(float((value - before[name]).abs().max()) for name, value in weights(trainer).items()))
    assert moved[0] > 5e-4
    assert 0 < moved[1] < 0.1 * moved[0]


def test_lost_rollouts_have_no_influence(tmp_path):
    """What a lost rollout's reward would have been moves neither its group's baseline nor the weights."""

    def lost(call, row):
        return row == 1

    def other(outcome):
        record = share_of_e(outcome)
        return record if outcome.is_valid else SimpleNamespace(**{**vars(record), "value": 123.0})

    first = make("masked", "grpo", tmp_path / "a", environment=CountingEnvironment(lost))
    second = make("masked", "grpo", tmp_path / "b", environment=CountingEnvironment(lost), reward=other)
    first.train()
    second.train()
    assert same(weights(first), weights(second))
    assert read_rows(tmp_path / "a" / "metrics.jsonl")[0]["fault_share"] == pytest.approx(1 / 8)


def test_micro_batches_add_up_to_the_full_batch(tmp_path):
    full = make("masked", "espo", tmp_path / "a", steps=1, inner_steps=1, micro_batch_rows=8)
    split = make("masked", "espo", tmp_path / "b", steps=1, inner_steps=1, micro_batch_rows=3)
    full.train()
    split.train()
    norms = [read_rows(tmp_path / name / "metrics.jsonl")[0]["grad_norm"] for name in "ab"]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_every_cell_sees_the_same_tasks_and_first_rollouts(tmp_path):
    seen = []
    for objective in OBJECTIVES:
        environment = CountingEnvironment()
        make("masked", objective, tmp_path / objective, environment=environment, steps=1).train()
        seen.append(environment.seen[0])
    assert all(plans == seen[0] for plans in seen)


def test_undefined_combinations_are_refused_with_the_reason(tmp_path):
    trainer = make("masked", "grpo", tmp_path)
    with pytest.raises(ConfigError, match="draws from"):
        Trainer(
            policy=trainer.policy,
            sampler=registry.get("sampler", "ar")(),
            objective=trainer.objective,
            environment=trainer.environment,
            reward=share_of_e,
            tasks=TASKS,
            config=TrainConfig(),
            run_dir=tmp_path,
        )


def test_torn_rows_are_dropped(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [{"step": 0, "value": float("nan")}, {"step": 1, "value": 2.0}])
    with path.open("a") as file:
        file.write('{"step": 2')
    assert read_rows(path) == [{"step": 0, "value": None}, {"step": 1, "value": 2.0}]
    shutil.rmtree(tmp_path)
    assert read_rows(path) == []


@pytest.mark.parametrize("family", ["autoregressive", "masked"])
def test_trajectory_objectives_score_at_the_sampling_temperature(tmp_path, family):
    """At temperature 1.5 the sampler's record and the recomputed log-probabilities agree."""
    from dllm_rl.views import trajectory

    policy = make_tiny_policy(family, sharpness=4.0)
    sampler = registry.get("sampler", DEFAULT_SAMPLERS[family])(temperature=1.5)
    trainer = make(family, "cj_grpo", tmp_path)
    batch = collect(
        policy=policy,
        sampler=sampler,
        environment=trainer.environment,
        reward=share_of_e,
        tasks=TASKS,
        group_size=2,
        first_row=0,
        seed=1,
        temperature=1.5,
    )
    views = trajectory(batch.rollouts, policy.corruption, torch.Generator().manual_seed(0))
    with torch.no_grad():
        scored = (policy.view_log_probs(batch.rollouts, views) * views.score).sum(dim=0)
    recorded = batch.rollouts.behaviour_log_probs * batch.rollouts.completion_mask
    torch.testing.assert_close(scored, recorded, atol=2e-4, rtol=1e-3)
