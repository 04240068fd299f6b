"""The loop's promises on every family and objective: on policy at the start, exact resume, faults masked."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch

from dllm_rl import registry
from dllm_rl.episodes import OneTurn
from dllm_rl.errors import CheckpointError, ConfigError
from dllm_rl.files import append_rows, read_rows
from dllm_rl.load_options import LoadOptions
from dllm_rl.policies.adapters import add_lora
from dllm_rl.records.tasks import Control, Fault, Observation, Outcome, Task
from dllm_rl.reward import FromFunction
from dllm_rl.training.config import TrainConfig
from dllm_rl.training.engine import RolloutEngine
from dllm_rl.training.groups import grouped, shuffle_rewards, stack_rollouts
from dllm_rl.training.trainer import Trainer
from tests.tiny_policies import make_tiny_policy

OBJECTIVES = ("grpo", "cj_grpo", "gspo", "espo")
PAGE = Observation(titles=("Join",), controls=(Control(ref="p1.e1", kind="text", name="Name"),))
TASKS = [
    Task(id=f"train/toy-{i}", split="train", site="toy", instruction=f"Name: {name}", gold=())
    for i, name in enumerate(("Anna", "Karl", "Rome"))
]


class CountingEnvironment(OneTurn):
    """Text only: the reward is the share of the letter e among the characters; a fault wherever `lost` says so."""

    def __init__(self, lost=lambda call, row: False):
        self.lost, self.calls, self.seen, self.scored = lost, 0, [], []

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

    def score_many(self, pairs):
        assert len(set(pairs)) == len(pairs), "a plan is scored twice"
        self.scored.extend(plan for _, plan in pairs)
        return [plan.count("e") / max(1, len(plan)) for _, plan in pairs]


def share_of_e(outcome):
    return float(outcome.fault_reason)


def flat(outcome):
    return 0.5


def make(
    family,
    objective,
    run_dir,
    *,
    environment=None,
    reward=share_of_e,
    options=None,
    lora=None,
    is_sharded: bool = False,
    optimiser: Any = "adamw",
    **settings,
):
    config = {"steps": 2, "prompts_per_step": 2, "group_size": 4, "inner_steps": 2, "learning_rate": 1e-3} | settings
    temperature = settings.get("temperature", 1.0)
    sampler = registry.get("sampler", registry.get("policy", family).usual_sampler)(temperature=temperature)
    environment = environment or CountingEnvironment()
    policy = make_tiny_policy(family, sharpness=4.0)
    if lora is not None:
        add_lora(policy, lora)
    return Trainer(
        engine=RolloutEngine(policy=policy, sampler=sampler, environment=environment, reward=FromFunction(reward)),
        objective=registry.build("objective", objective, options or {}),
        tasks=TASKS,
        config=TrainConfig(**config),
        run_dir=run_dir,
        loading=LoadOptions(shards=2 if is_sharded else 1, optimiser=optimiser),
    )


def rollouts_of(engine, tasks):
    """Two rollouts of each task, stacked."""
    repeated = [task for task in tasks for _ in range(2)]
    batch = engine.run(repeated, range(len(repeated)), seed=1)
    return stack_rollouts(grouped(batch, 2), temperature=engine.sampler.temperature, pad_id=engine.policy.canvas.pad_id)


def weights(trainer):
    return {name: value.clone() for name, value in trainer.policy.model.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("family", registry.names("policy"))
def test_first_ratio_is_exactly_one_and_weights_move(tmp_path, family, objective):
    trainer = make(family, objective, tmp_path)
    before = weights(trainer)
    trainer.train()
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1]
    assert all(row["ratio_dev_u0"] == 0.0 for row in rows)
    assert not same(before, weights(trainer))
    assert all(row["grad_norm"] > 0 for row in rows)


def test_shuffled_rewards_are_dealt_among_valid_rows_and_logged_ones_stay_true(tmp_path):
    trainer = make("masked", "grpo", tmp_path / "true")
    rollouts = rollouts_of(trainer.engine, TASKS)
    rollouts = replace(rollouts, valid=rollouts.valid.index_fill(0, torch.tensor([1]), False))
    dealt = [shuffle_rewards(rollouts, torch.Generator().manual_seed(seed)).rewards for seed in range(200)]
    assert all(torch.equal(rewards.sort().values, rollouts.rewards.sort().values) for rewards in dealt)
    assert all(rewards[1] == rollouts.rewards[1] for rewards in dealt), "a lost row keeps its own"
    mean = rollouts.rewards[rollouts.valid].mean()
    assert torch.allclose(
        torch.stack(dealt).mean(dim=0)[rollouts.valid], mean.expand(int(rollouts.valid.sum())), atol=0.1
    )
    shuffled = make("masked", "grpo", tmp_path / "shuffled", shuffles_rewards=True)
    trainer.train()
    shuffled.train()
    true, told = (read_rows(tmp_path / name / "metrics.jsonl")[0] for name in ("true", "shuffled"))
    assert true["reward"] == told["reward"]
    assert not same(weights(trainer), weights(shuffled))


def test_rewards_of_single_steps_are_not_shuffled(tmp_path):
    with pytest.raises(ConfigError, match="would stay true"):
        make("masked", "mdpo", tmp_path, shuffles_rewards=True)


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


def test_a_run_with_an_optimiser_in_8_bits_is_resumed_bit_for_bit(tmp_path):
    pytest.importorskip("bitsandbytes")
    settings = {"steps": 2, "checkpoint_every": 1, "inner_steps": 1}
    whole, cut = (make("masked", "grpo", tmp_path / name, optimiser="adamw_8bit", **settings) for name in "ab")
    whole.train()
    cut.train(until=1)
    resumed = make("masked", "grpo", tmp_path / "b", optimiser="adamw_8bit", **settings)
    resumed.train()
    assert same(weights(whole), weights(resumed)) and not same(weights(cut), weights(resumed))
    other = make("masked", "grpo", tmp_path / "c", **settings)
    other.train()
    assert not same(weights(whole), weights(other)), "the option would have no effect"


def test_a_finished_run_does_nothing_more(tmp_path):
    make("autoregressive", "grpo", tmp_path).train()
    environment = CountingEnvironment()
    make("autoregressive", "grpo", tmp_path, environment=environment).train()
    assert environment.calls == 0


@pytest.mark.parametrize(
    ("objective", "more", "differs"),
    [
        ("gspo", {}, "objective.name=grpo, .*; given: objective.name=gspo"),
        ("grpo", {"options": {"beta": 0.5}}, "objective.beta=0.04; given: objective.beta=0.5"),
        ("grpo", {"learning_rate": 1e-5}, "train.learning_rate=0.001; given: train.learning_rate=1e-05"),
        ("grpo", {"temperature": 0.5}, "sampler.temperature=1.0, train.temperature=1.0; given: "),
    ],
)
@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_does_not_go_on_as_another(tmp_path, objective, more, differs, steps):
    make("autoregressive", "grpo", tmp_path, steps=1).train()
    with pytest.raises(CheckpointError, match=f"is the state of a run with {differs}"):
        make("autoregressive", objective, tmp_path, steps=steps, **more).train()


def test_how_far_a_run_goes_and_what_decides_no_number_may_change(tmp_path):
    make("autoregressive", "grpo", tmp_path, steps=1).train()
    state = tmp_path / "checkpoint" / "state.json"
    make("autoregressive", "grpo", tmp_path, steps=2, checkpoint_every=1, micro_batch_rows=3).train()
    record = json.loads(state.read_text())
    assert record["step"] == 2
    # What an older version wrote, which did not say, is taken as it is.
    state.write_text(json.dumps({key: value for key, value in record.items() if key != "made_by"}))
    make("autoregressive", "gspo", tmp_path, steps=2).train()


def test_a_damaged_training_checkpoint_is_refused(tmp_path):
    make("autoregressive", "grpo", tmp_path).train()
    path = tmp_path / "checkpoint" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\1\2\3")
    with pytest.raises(CheckpointError, match="hash"):
        make("autoregressive", "grpo", tmp_path, steps=3).train()


def test_a_kill_between_the_two_renames_of_a_checkpoint_loses_nothing(tmp_path):
    make("autoregressive", "grpo", tmp_path).train()
    (tmp_path / "checkpoint").rename(tmp_path / ".checkpoint.old")
    environment = CountingEnvironment()
    make("autoregressive", "grpo", tmp_path, environment=environment).train()
    assert environment.calls == 0


def test_groups_without_variance_are_filtered_and_leave_the_weights_alone(tmp_path):
    trainer = make("masked", "grpo", tmp_path, reward=flat, options={"beta": 0.0})
    before = weights(trainer)
    trainer.train()
    assert same(before, weights(trainer))
    row = read_rows(tmp_path / "metrics.jsonl")[0]
    assert (row["rows_updated"], row["rows_filtered"], row["frac_reward_zero_std"]) == (0.0, 8.0, 1.0)


@pytest.mark.parametrize(("objective", "options"), [("grpo", {"beta": 0.5}), ("gdsd", {})])
def test_groups_without_variance_stay_where_they_have_a_gradient(tmp_path, objective, options):
    """Groups of even tasks are flat: the penalty, or the regression, still sees their rows."""

    def half_flat(outcome):
        return flat(outcome) if outcome.task_id.endswith("0") else share_of_e(outcome)

    make("masked", objective, tmp_path, reward=half_flat, options=options, prompts_per_step=3).train()
    row = read_rows(tmp_path / "metrics.jsonl")[0]
    assert row["frac_reward_zero_std"] >= 1 / 3
    assert (row["rows_updated"], row["rows_filtered"]) == (12.0, 0.0)


@pytest.mark.parametrize("family", ["masked", "block", "slot", "flow"])
def test_intermediate_answers_are_scored_where_required_and_only_there(tmp_path, family):
    environment, other = CountingEnvironment(lambda call, row: row == 1), CountingEnvironment()
    trainer = make(family, "mdpo", tmp_path / "a", environment=environment, steps=1, inner_steps=1)
    before = weights(trainer)
    trainer.train()
    make(family, "cj_grpo", tmp_path / "b", environment=other, steps=1).train()
    row, plain = (read_rows(tmp_path / name / "metrics.jsonl")[0] for name in "ab")
    assert row["ratio_dev_u0"] == 0.0
    assert not same(before, weights(trainer))
    assert row["answers/scored"] == len(environment.scored) > 0
    assert row["answers/forwards"] > 0 and row["seconds/answers"] > 0
    assert not other.scored and not any(name.startswith("answers/") for name in plain)


def test_answers_that_are_required_without_rewards_are_not_scored(tmp_path):
    environment = CountingEnvironment()
    trainer = make("masked", "informed_espo", tmp_path, environment=environment, steps=1, inner_steps=1)
    before = weights(trainer)
    trainer.train()
    row = read_rows(tmp_path / "metrics.jsonl")[0]
    assert row["answers/forwards"] > 0 and row["answers/scored"] == 0 and not environment.scored
    assert row["ratio_dev_u0"] == 0.0 and not same(before, weights(trainer))


def test_an_answer_keeps_what_the_step_wrote_and_ends_in_the_completion(tmp_path):
    """Of each step: tokens that it committed stand in its answer, and the last answer is the completion itself."""
    from dllm_rl.training.intermediate import last_step, with_step_rewards

    trainer = make("masked", "mdpo", tmp_path)
    tasks = [task for task in TASKS for _ in range(2)]
    answered = with_step_rewards(
        trainer.policy,
        rollouts_of(trainer.engine, TASKS),
        tasks,
        trainer.engine.environment.score_many,
        torch.Generator().manual_seed(0),
    )
    rollouts, answers = answered.rollouts, answered.rollouts.answers
    recorded, last = rollouts.trajectory, last_step(rollouts.trajectory)
    row = torch.arange(rollouts.num_rows)
    assert torch.equal(answers.ids[row, last], trainer.policy.canvas.close(rollouts.completion_ids))
    first = (recorded.commit_step == 0) & rollouts.completion_mask
    assert torch.equal(
        answers.ids[:, 0][first & answers.score[:, 0]], rollouts.completion_ids[first & answers.score[:, 0]]
    )
    assert bool((answers.confidence[answers.score] > 0).all())
    assert bool((recorded.canvases[:, :-1][answers.score] == trainer.policy.mask_id).all())
    assert torch.equal(rollouts.step_rewards[:, -1], rollouts.rewards)
    text = trainer.policy.canvas.decode(answers.ids[0, 0])
    assert float(rollouts.step_rewards[0, 0]) == pytest.approx(text.count("e") / max(1, len(text)))


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
        return share_of_e(outcome) if outcome.is_valid else 123.0

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


@pytest.mark.parametrize("objective", ["espo", "stable_drl", "bgpo"])
def test_a_second_pass_gives_the_gradient_of_one(tmp_path, objective):
    """Coupled rows, or views of one row that do not fit together, are scored twice: same gradient, same ratio of 1."""
    settings = {"steps": 1, "inner_steps": 1}
    make("masked", objective, tmp_path / "a", micro_batch_rows=1000, **settings).train()
    make("masked", objective, tmp_path / "b", micro_batch_rows=3, **settings).train()
    rows = [read_rows(tmp_path / name / "metrics.jsonl")[0] for name in "ab"]
    assert rows[0]["grad_norm"] == pytest.approx(rows[1]["grad_norm"], rel=1e-4)
    assert rows[1]["ratio_dev_u0"] == 0.0


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
            engine=replace(trainer.engine, sampler=registry.get("sampler", "ar")()),
            objective=trainer.objective,
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

    policy = make_tiny_policy(family, sharpness=4.0)
    sampler = registry.get("sampler", registry.get("policy", family).usual_sampler)(temperature=1.5)
    engine = RolloutEngine(
        policy=policy, sampler=sampler, environment=CountingEnvironment(), reward=FromFunction(share_of_e)
    )
    rollouts = rollouts_of(engine, TASKS)
    assert rollouts.temperature == 1.5
    views = policy.process.replay(rollouts, torch.Generator().manual_seed(0))
    with torch.no_grad():
        scored = (policy.view_log_probs(rollouts, views) * views.score).sum(dim=0)
    recorded = rollouts.trajectory.log_probs * rollouts.completion_mask
    torch.testing.assert_close(scored, recorded, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(("family", "has_gap"), [("masked", True), ("flow", False)])
def test_flows_have_no_selection_gap(tmp_path, family, has_gap) -> None:
    """Their record has the entropy of the draws that moved a position, and the probability of all transitions."""
    make(family, "espo", tmp_path, steps=1, inner_steps=1).train()
    (row,) = read_rows(tmp_path / "metrics.jsonl")
    assert ("selection_gap" in row) == has_gap and "path_entropy" in row
