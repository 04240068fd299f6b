"""A warm start in two processes, as `accelerate launch` starts them, gives the weights of one: adapter and shards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from dllm_rl.errors import ConfigError
from dllm_rl.files import write_json
from dllm_rl.policies.loading import load_policy
from dllm_rl.training import warmstart
from dllm_rl.training.ranks import Ranks, launched_ranks
from experiments.run import warmstarts
from experiments.run.demonstrations import as_dataset
from experiments.run.warmstarts import run_warm_starts, train_stage
from tests.dllm_rl.policies import checkpoints
from tests.experiments.run.test_own_warmstart import FACTS, SHOWN
from tests.processes import launched

# float32, since products in bfloat16 round other batches otherwise.
TRAIN = {"passes": 16, "batch_size": 2, "accumulation_steps": 2, "warmup_steps": 1, "learning_rate": 1.0e-3}
STAGES = {"adapter": {"lora": {"rank": 2}}, "sharded": {"shards": 2}, "half": {"shards": 2, "dtype": "bfloat16"}}
FILE = {"adapter": "adapter_model.safetensors", "sharded": "model.safetensors", "half": "model.safetensors"}


class CutOffError(Exception):
    """A run that was cut off."""


def warm_starts(recipe: str, out: Path, cut: Path) -> None:
    """Each stage as the command does it; and again, cut off after two steps and gone on with."""
    warmstart.STEPS_PER_STATE = 2
    keep, leave = warmstart._State.keep, warmstart.Ranks.leave

    def keep_and_end(state, step, model, optimiser):
        keep(state, step, model, optimiser)
        raise CutOffError

    if not launched_ranks().is_first:
        # What another process would make of the recipe, as where an environment loses a plan there.
        warmstarts.demonstrations = lambda settings, fits: SHOWN[:-1]
    # The command ends in parting from the others, which here is to come later.
    warmstart.Ranks.leave = lambda ranks: None
    assert run_warm_starts([], [], out=out, name=recipe) == 0
    for stage in STAGES:
        warmstart._State.keep = keep_and_end
        try:
            train_stage(stage, cut, launched_ranks())
        except CutOffError:
            warmstart._State.keep = keep
            train_stage(stage, cut, launched_ranks())
            (cut / f"{stage}.resumed").touch()
    leave(launched_ranks())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of the warm starts: `two` by two processes, `cut` by two that were cut off, `one` by one process."""
    folder = tmp_path_factory.mktemp("warm")
    path, _ = checkpoints.llada(folder / "published")
    as_dataset(SHOWN).to_json(folder / "plans.jsonl")
    own = {"init": path, "facts": FACTS, "dtype": "float32", "train": {**TRAIN, "is_mixed_precision": False}}
    recipe = {
        "demonstrations": {"source": str(folder / "plans.jsonl")},
        "families": {stage: {**own, **keys} for stage, keys in STAGES.items()},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for name in ("cut", "one"):
        write_json(folder / name / "recipe.json", recipe)
    launched(warm_starts, str(folder / "recipe.yaml"), folder / "two", folder / "cut", folder=folder)
    return folder


@pytest.mark.parametrize("stage", ["adapter", "sharded"])
def test_two_processes_give_the_weights_of_one(folder, stage):
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe["families"][stage].pop("shards", None)
    write_json(folder / "one" / "recipe.json", recipe)
    train_stage(stage, folder / "one")
    one, two = (load_file(folder / name / stage / FILE[stage]) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5)
    if stage == "sharded":
        start = load_policy(str(folder / "published")).model.state_dict()
        assert all(not torch.equal(one[name], value.float()) for name, value in start.items() if "q_proj" in name)


@pytest.mark.parametrize("stage", STAGES)
def test_the_same_command_goes_on_bit_for_bit(folder, stage):
    assert (folder / "cut" / f"{stage}.resumed").is_file()
    one, two = ((folder / name / stage / FILE[stage]).read_bytes() for name in ("cut", "two"))
    assert one == two
    assert not (folder / "two" / f"{stage}.state").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"accumulation_steps": 3}, "the batches of a step that 2 processes share. Give a multiple of 2"),
        ({"shards": 4}, "stage 'mine' has shards=4, and 2 processes run. Launch as many"),
    ],
)
def test_what_processes_cannot_share_is_refused(tmp_path, monkeypatch, changes, says):
    monkeypatch.setattr("dllm_rl.training.ranks.launched_ranks", lambda devices: Ranks(number=0, count=2))
    stage = {"init": "./mine", "shards": changes.get("shards", 1)}
    train = {"accumulation_steps": changes.get("accumulation_steps", 2)}
    recipe = {"demonstrations": {"source": "plans.jsonl"}, "families": {"mine": {**stage, "train": train}}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(ConfigError, match=says):
        run_warm_starts([], [], out=tmp_path / "out", name=str(tmp_path / "recipe.yaml"))
    assert not (tmp_path / "out").exists()
