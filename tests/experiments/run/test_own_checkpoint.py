"""A published checkpoint with an adapter through `dllm-rl train`: trained, evaluated, and its folder loads again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dllm_rl.errors import ConfigError
from dllm_rl.policies.head import without_adapter
from experiments.cli.grid import train_cell
from experiments.run import policies
from tests.dllm_rl.policies import checkpoints

SMALL = [
    "train.steps=1",
    "train.prompts_per_step=2",
    "train.group_size=2",
    "training_tasks.max_tasks=2",
    "evaluation.max_tasks=2",
    "evaluation.num_samples=1",
]


def test_a_cell_is_trained_on_it_and_loads_from_its_folder(tmp_path: Path):
    path, model = checkpoints.llada(tmp_path / "checkpoint")
    level = [f"policies.masked.checkpoint={path}", "policies.masked.facts={canvas_length: 8, max_prompt: 200}"]
    words = ["toy_sort", "masked", "cj_grpo", *level, "train.learning_rate=0.01", *SMALL]
    keys = ["lora={rank: 2, targets: [q_proj, v_proj]}"]
    assert train_cell(words, preset_name="quick", seed=0, out=tmp_path / "run", policy_keys=keys) == 0
    (seed,) = tmp_path.glob("run/cells/*/seed0")
    policy = policies.load(str(seed))
    base = without_adapter(policy.model)
    assert policy.facts.canvas_length == 8 and hasattr(policy.model, "peft_config")
    frozen = base.model.layers[0].self_attn.q_proj.base_layer.weight
    assert torch.equal(frozen, model.model.layers[0].self_attn.q_proj.weight)
    assert (seed / "checkpoint" / "model.safetensors").stat().st_size < 10_000


def test_a_toy_takes_no_such_keys():
    with pytest.raises(ConfigError, match="dtype would have no effect"):
        policies.load_toy("toy:toy_sort", {"family": "masked"}, policies.LoadOptions(dtype="bfloat16"))
