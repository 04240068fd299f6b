"""A checkpoint from a folder is taught on demonstrations by `dllm-rl warmstart`, with an adapter or as a whole."""

from __future__ import annotations

import json

import datasets
import pytest
import torch
import yaml
from typer.testing import CliRunner

from dllm_rl.environment import Unsolved
from dllm_rl.errors import CheckpointError, ConfigError
from dllm_rl.files import write_json
from dllm_rl.policies.adapters import base_of_adapter
from dllm_rl.policies.head import without_adapter
from dllm_rl.policies.loading import load_policy
from dllm_rl.records.tasks import render_prompt
from dllm_rl.session import Session
from dllm_rl.training import warmstart
from dllm_rl.training.warmstart import Demonstration, WarmStartConfig, warm_start
from experiments.cli.commands import app
from experiments.design.config import Component, build_session
from experiments.run import warmstarts
from experiments.run.demonstrations import as_dataset, gold_demonstrations, read_demonstrations
from experiments.run.recipe import Demonstrations, demonstrations, load_recipe, refuse_wrong_stages
from experiments.run.status import claim
from experiments.run.warmstarts import run_warm_starts, train_stage
from tests.dllm_rl.policies import checkpoints
from tests.tiny_policies import PLANS, PROMPTS

SHOWN = [Demonstration(prompt=prompt, plan=plan) for prompt, plan in zip(PROMPTS, PLANS, strict=True)]
TRAIN = {"passes": 8, "batch_size": 2, "accumulation_steps": 2, "warmup_steps": 1, "learning_rate": 1.0e-2}
FACTS = {"canvas_length": 96, "max_prompt": 200}


def recipe(tmp_path, path: str, **stage) -> dict:
    source = tmp_path / "plans.jsonl"
    as_dataset(SHOWN).to_json(source)
    return {
        "demonstrations": {"source": str(source)},
        "families": {"mine": {"init": path, "facts": FACTS, "train": TRAIN, **stage}},
    }


@pytest.mark.parametrize("kind", ["llada", "sdar"])
def test_an_adapter_is_taught_and_its_folder_loads(tmp_path, kind):
    path, model = getattr(checkpoints, kind)(tmp_path / "published", **({"block_size": 4} if kind == "sdar" else {}))
    write_json(tmp_path / "recipe.json", recipe(tmp_path, path, lora={"rank": 2}))
    train_stage("mine", tmp_path)
    assert base_of_adapter(tmp_path / "mine") == path
    policy = load_policy(str(tmp_path / "mine"))
    assert policy.facts.canvas_length == 96
    moved = [weight for name, weight in policy.model.named_parameters() if "lora_B" in name]
    assert moved and all(weight.abs().max() > 0 for weight in moved)
    base = without_adapter(policy.model).model.layers[0].self_attn.q_proj.base_layer.weight
    assert torch.equal(base, model.model.layers[0].self_attn.q_proj.weight)


def test_all_weights_are_taught_in_the_numbers_that_they_have(tmp_path, capfd):
    path, model = checkpoints.dream(tmp_path / "published")
    write_json(tmp_path / "recipe.json", recipe(tmp_path, path))
    capfd.readouterr()
    train_stage("mine", tmp_path)
    out, err = capfd.readouterr()
    assert out.splitlines()[-1].startswith("step 2/2, loss ") and "Loading weights" not in out + err
    policy = load_policy(str(tmp_path / "mine"))
    assert (policy.model.dtype, policy.facts.is_shifted) == (torch.bfloat16, True)
    assert not torch.equal(policy.model.lm_head.weight, model.lm_head.weight)


class CutOffError(Exception):
    """A run that was cut off."""


def cut_off(monkeypatch, stage, out):
    """Begin a stage, and cut it off behind its first state."""
    keep = warmstart._State.keep

    def keep_and_end(state, step, model, optimiser):
        keep(state, step, model, optimiser)
        raise CutOffError

    monkeypatch.setattr(warmstart, "STEPS_PER_STATE", 1)
    with monkeypatch.context() as patched:
        patched.setattr(warmstart._State, "keep", keep_and_end)
        with pytest.raises(CutOffError):
            train_stage(stage, out)


def test_a_stage_goes_on_only_from_the_data_and_the_checkpoint_that_it_began_with(tmp_path, monkeypatch):
    path, _ = checkpoints.dream(tmp_path / "published")
    said = recipe(tmp_path, path)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(said))
    out = tmp_path / "out"
    write_json(out / "recipe.json", said)
    cut_off(monkeypatch, "mine", out)

    def command():
        return run_warm_starts([], [], out=out, name=str(tmp_path / "recipe.yaml"))

    as_dataset(SHOWN[:-1]).to_json(tmp_path / "plans.jsonl")
    with pytest.raises(ConfigError, match=r"was begun from \S+plans.jsonl, which was changed since"):
        command()
    as_dataset(SHOWN).to_json(tmp_path / "plans.jsonl")
    train_stage("mine", out)
    assert command() == 0
    config = tmp_path / "published" / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(ConfigError, match=r"out/mine' was made from \S+published, which was changed since"):
        command()


def test_a_state_is_refused_where_an_environment_gives_other_plans(tmp_path, monkeypatch):
    path, _ = checkpoints.dream(tmp_path / "published")
    write_json(tmp_path / "recipe.json", recipe(tmp_path, path))
    cut_off(monkeypatch, "mine", tmp_path)
    monkeypatch.setattr(warmstarts, "demonstrations", lambda settings, fits: SHOWN[:-1])
    with pytest.raises(ConfigError, match=r"mine.state' was kept by a warm start on other demonstrations"):
        train_stage("mine", tmp_path)


def test_a_stage_is_trained_by_one_command_at_a_time(tmp_path):
    with claim(tmp_path / ".mine") as is_mine:
        assert is_mine
        with pytest.raises(ConfigError, match="mine' is being trained by another command"):
            train_stage("mine", tmp_path)


def test_a_stage_begins_only_where_its_policy_can_be_saved(tmp_path):
    write_json(tmp_path / "recipe.json", recipe(tmp_path, "./absent"))
    (tmp_path / "mine" / "run").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="would be removed"):
        train_stage("mine", tmp_path)


def test_one_step_of_two_batches_is_one_step_on_their_mean_loss(tiny_policies):
    """With a loss that does not depend on chance the weights are those of one batch of both."""
    from tests.tiny_policies import make_tiny_policy

    settings = {"passes": 4, "warmup_steps": 1, "is_mixed_precision": False, "learning_rate": 1e-2}
    weights = []
    for batch_size, parts in ((4, 1), (2, 2)):
        policy = make_tiny_policy("autoregressive")
        four = [SHOWN[0]] * 4
        warm_start(policy, four, WarmStartConfig(batch_size=batch_size, accumulation_steps=parts, **settings))
        weights.append(policy.model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_demonstrations_are_written_and_read_by_one_line(tmp_path, suffix):
    path = tmp_path / f"plans.{suffix}"
    rows = as_dataset(SHOWN)
    rows.to_json(path) if suffix == "jsonl" else rows.to_parquet(path)
    assert read_demonstrations(str(path)) == SHOWN
    assert read_demonstrations(str(path), count=2) == SHOWN[:2]
    assert demonstrations(Demonstrations(source=str(path), count=1)) == SHOWN[:1]


def test_the_gold_plans_of_an_environment_are_demonstrations():
    settings = Demonstrations(environment=Component(name="toy_sort"), count=3)
    with build_session(Component(name="toy_sort")) as session:
        tasks = session.tasks("train")[:3]
        expected = [(session.observe_many([task])[0], session.gold_plan(task)) for task in tasks]
    assert demonstrations(settings) == [
        Demonstration(prompt=render_prompt(task, page), plan=plan)
        for task, (page, plan) in zip(tasks, expected, strict=True)
    ]


def test_plans_that_do_not_succeed_are_left_out_and_none_at_all_is_refused(monkeypatch, caplog):
    task_ids = []

    def first_fails(self, tasks):
        task_ids.extend(task.id for task in tasks)
        return {tasks[0].id: Unsolved(reason="the site says no")}

    monkeypatch.setattr(Session, "self_check", first_fails)
    assert len(gold_demonstrations(Component(name="toy_sort"), count=3)) == 2
    assert f"1 of 3 gold plans do not succeed and are left out: {task_ids[0]}, the site says no" in caplog.text
    with pytest.raises(ConfigError, match=r"no gold plan of them succeeds.*The first one: the site says no"):
        gold_demonstrations(Component(name="toy_sort"), count=1)
    with pytest.raises(ConfigError, match="has episodes of several turns"):
        gold_demonstrations(Component(name="episodes"))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"prompt": "Send.", "text": "submit p1.e2"}], "expected prompt .* and plan .* Add or rename plan"),
        ([{"prompt": "Send.", "plan": None}], "row 0 .* has plan=None; expected a text"),
    ],
)
def test_a_data_set_without_texts_is_refused(tmp_path, rows, says):
    path = tmp_path / "plans.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ConfigError, match=says):
        read_demonstrations(str(path))
    with pytest.raises(ConfigError, match="no file"):
        read_demonstrations(str(tmp_path / "absent.jsonl"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"demonstrations": {"source": "p.jsonl", "dials": [2]}},
            "dials has no effect on demonstrations from a data set",
        ),
        ({"demonstrations": {}}, "count is missing"),
        (
            {"demonstrations": {"environment": {"name": "toy_sort"}, "dials": [2]}},
            "dials has no effect on demonstrations from an environment",
        ),
        (
            {"families": {"mine": {"init": "builtin:masked", "family": "masked", "device": "cuda"}}},
            "stage 'mine' has device",
        ),
        ({"tokenizer": {"vocab_size": 400}}, "goes on from ./mine, and so with its tokenizer"),
        (
            {"families": {"a": {"init": "./mine"}, "block": {"init": "a"}}},
            "goes on from a checkpoint that is not built",
        ),
        ({"families": {"mine": {"init": "./mine", "facts": {"familly": "masked"}, "family": "masked"}}}, "familly"),
    ],
)
def test_recipes_that_cannot_work_are_refused(tmp_path, changes, says):
    path = tmp_path / "mine.yaml"
    base = {"demonstrations": {"source": "p.jsonl"}, "families": {"mine": {"init": "./mine"}}}
    path.write_text(yaml.safe_dump(base | changes))
    with pytest.raises(ConfigError, match=says):
        refuse_wrong_stages(load_recipe(str(path)))


def test_a_command_takes_one_recipe(tmp_path):
    found = CliRunner().invoke(app, ["warmstart", "mine.yaml", "--recipe", "finish"])
    assert "the recipes mine.yaml, finish were given" in str(found.exception or found.output)


def test_rollouts_are_a_data_set_too(tmp_path):
    """`rollouts.jsonl` is read by the line that the page shows."""
    path = tmp_path / "rollouts.jsonl"
    path.write_text('{"task": "a", "reward": 1.0}\n{"task": "b", "reward": 0.0}\n')
    assert datasets.load_dataset("json", data_files=str(path), split="train")["reward"] == [1.0, 0.0]
