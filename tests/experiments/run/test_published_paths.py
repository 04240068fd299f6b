"""Each published format goes the whole way: taught with an adapter, trained, a cell in Chromium, eval, film, reload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dllm_rl.files import write_json
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.loading import load_policy, save_policy
from dllm_rl.records.types import Prompts
from experiments.cli.evaluate import Draws, EvaluatedTasks, measure, show_film
from experiments.cli.grid import run_grid, train_cell
from experiments.cli.turns import TurnOptions
from experiments.design.presets import load_preset
from experiments.run import policies
from experiments.run.demonstrations import as_dataset
from experiments.run.folder import RunFolder
from experiments.run.warmstarts import train_stage
from tests.dllm_rl.policies import checkpoints
from tests.experiments.run.test_own_warmstart import SHOWN, TRAIN

# Keys of each format beside what its files say; plans are cut short, since random weights write nothing of use.
FACTS = {"canvas_length": 24, "max_prompt": 1800}
FORMATS = {
    "llada": {},
    "llada_moe": {},
    "dream": {},
    "sdar": {"block_size": 4},
    "llada2": {"block_size": 4},
    "fast_dllm": {},
    "a2d": {"family": "masked"},
    "refusion": {"family": "slot", "slot_size": 4},
    "qwen3": {"family": "autoregressive"},
}
# Of the grid's one cell, and of training.
SMALL = [
    "train.steps=1",
    "train.prompts_per_step=2",
    "train.group_size=2",
    "train.learning_rate=0.001",
    "training_tasks.max_tasks=2",
    "evaluation.max_tasks=2",
    "evaluation.num_samples=1",
    "threads=1",
]


def published(name: str, folder: Path) -> str:
    if name != "qwen3":
        return getattr(checkpoints, name)(folder)[0]
    checkpoints.tokenizer().save_pretrained(folder)
    checkpoints.stock("qwen3", vocab_size=len(checkpoints.tokenizer())).save_pretrained(folder)
    return str(folder)


def preset(folder: Path, base: str, level: dict[str, Any]) -> str:
    """A preset of one cell: this level, trained by its trajectory."""
    levels = {**dict.fromkeys(load_preset(base).policies), "mine": level}
    data = {"base": base, "description": "One cell.", "seeds": [0], "objectives": ["cj_grpo"], "policies": levels}
    data |= {"controls": []} if load_preset(base).controls.by_role() else {}
    path = folder / f"{base}.yaml"
    path.write_text(yaml.safe_dump(data))
    return str(path)


def law(policy: BasePolicy) -> torch.Tensor:
    """Its distribution of the first columns of an empty canvas."""
    prompts: Prompts = policy.prompts(["Send the form."], [0])
    with torch.no_grad():
        return policy.logits(prompts, policy.empty_canvas(1), columns=torch.arange(4)).float().softmax(dim=-1)


@pytest.mark.browser
@pytest.mark.soak
@pytest.mark.parametrize("name", FORMATS)
def test_a_published_format_goes_the_whole_way(tmp_path, name):
    path, facts = published(name, tmp_path / "published"), {**FACTS, **FORMATS[name]}
    level = {"checkpoint": path, "sampler": {"name": "ar"}, "facts": facts}
    family = load_policy(path, facts=facts)
    level["sampler"] = {"name": family.usual_sampler}

    # All weights, in Chromium, by the trajectory. Plans of random weights all fail, so there is nothing to learn from.
    assert run_grid(preset(tmp_path, "quick", level), SMALL, out=tmp_path / "whole", is_dry_run=False, workers=1) == 0
    (seed,) = tmp_path.glob("whole/cells/*/seed0")
    trained = policies.load(str(seed))
    assert RunFolder(tmp_path / "whole").results().num_rows > 0

    # An adapter, on a toy.
    words = ["mine", "cj_grpo", *SMALL]
    toy = preset(tmp_path, "toy_sort", level)
    assert train_cell(words, preset_name=toy, seed=0, out=tmp_path / "toy", policy_keys=["lora.rank=2"]) == 0
    (seed,) = tmp_path.glob("toy/cells/*/seed0")
    assert hasattr(policies.load(str(seed)).model, "peft_config")

    # The plan language, by an adapter; and what was taught is evaluated and filmed.
    source = tmp_path / "plans.jsonl"
    as_dataset([type(item)(prompt=item.prompt, plan="submit p1.e2") for item in SHOWN]).to_json(source)
    stage = {"init": path, "facts": facts, "train": TRAIN, "lora": {"rank": 2}}
    write_json(tmp_path / "recipe.json", {"demonstrations": {"source": str(source)}, "families": {"mine": stage}})
    train_stage("mine", tmp_path)
    taught = load_policy(str(tmp_path / "mine"))
    assert not torch.equal(law(taught), law(family))
    tasks = EvaluatedTasks(environment="toy_sort", splits=("val",), max_tasks=2)
    draws = Draws(sampler=None, temperature=1.0, num_samples=1, seed=0)
    assert measure(str(tmp_path / "mine"), tasks, draws, turns=TurnOptions(), out=None, as_json=True) == 0
    film = tmp_path / "film.html"
    sampled = {"sampler": None, "temperature": 1.0, "seed": 0, "out": film}
    assert show_film(str(tmp_path / "mine"), split="val", number=0, **sampled) == 0
    assert "<html" in film.read_text()

    # Saved whole and loaded again, it says the same.
    save_policy(trained, tmp_path / "saved")
    torch.testing.assert_close(law(load_policy(str(tmp_path / "saved"))), law(trained), rtol=0, atol=0)
