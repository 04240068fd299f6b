"""`accelerate launch`: two processes give the losses, weights and rollouts of one; work is shared, nothing twice."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from safetensors.torch import load_file

from dllm_rl.errors import ConfigError
from dllm_rl.files import read_rows
from dllm_rl.load_options import LoraOptions
from dllm_rl.training import trainer
from dllm_rl.training.ranks import ALONE, Ranks, launched_ranks
from tests.dllm_rl.training.test_trainer import make
from tests.processes import free_port

ROOT = Path(__file__).parents[3]
# Exact views, drawn views of a coupled loss (whole groups), drawn views with a reference policy, replayed steps; an
# adapter, whose reference is the model without it; and weights in shards, with and without a reference policy.
RUNS = {
    "autoregressive": ("grpo", {"beta": 0.1}),
    "masked": ("stable_drl", {}),
    "flow": ("espo", {"beta": 0.1}),
    "slot": ("cj_grpo", {}),
    "masked adapter": ("espo", {"beta": 0.1}),
    "masked sharded": ("espo", {"beta": 0.1}),
    "autoregressive sharded": ("grpo", {}),
}
# A floor under AdamW's divisor, without which the rounding of a gradient near zero decides the sign of a whole step.
SETTINGS = {"steps": 2, "prompts_per_step": 3, "group_size": 4, "inner_steps": 2, "adam_epsilon": 1e-4}
SCRIPT = """
    import sys
    from pathlib import Path
    import torch
    from tests.dllm_rl.training.test_ranks import RUNS, settings_of
    from tests.dllm_rl.training.test_trainer import CountingEnvironment, make

    torch.set_num_threads(1)
    for name, (objective, options) in RUNS.items():
        environment = CountingEnvironment(lambda call, row: False)
        folder = Path(sys.argv[1]) / name
        family, settings = settings_of(name)
        trainer = make(family, objective, folder, environment=environment, options=options, **settings)
        # Sharded weights are read from the head in tiles, as those with large vocabularies are.
        trainer.policy.reads_in_tiles = "sharded" in name
        trainer.train()
        assert trainer.policy.reads_in_tiles == ("sharded" in name)
        done = [len(plans) for plans in environment.seen]
        (folder / f"plans{trainer.ranks.number}").write_text(" ".join(map(str, done)))
        if " " in name:
            for steps in (1, None):
                again = make(family, objective, folder / "resumed", options=options, **settings)
                again.policy.reads_in_tiles = "sharded" in name
                again.train(until=steps)
    trainer.ranks.leave()
"""


def settings_of(name):
    """Family of a run, and settings of its trainer."""
    family, _, kind = name.partition(" ")
    settings = SETTINGS | {"lora": LoraOptions(rank=2, targets=("qkv", "up")) if kind == "adapter" else None}
    # Few rows at a time, so that the process with more groups has more to do.
    return family, settings | ({"is_sharded": True, "micro_batch_rows": 4} if kind == "sharded" else {})


def launch(*arguments: str, num_processes: int = 2) -> str:
    """Run a script (or -m MODULE) under `accelerate launch` on this machine's processors, over loopback; its output."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    command += ["--num_processes", str(num_processes), "--main_process_ip", "127.0.0.1"]
    command += ["--main_process_port", str(free_port())]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=280)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, output[-3000:]
    return output


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Folder of the runs by two processes."""
    folder = tmp_path_factory.mktemp("two")
    script = folder / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    launch(str(script), str(folder))
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_give_the_losses_of_one(two, tmp_path, name):
    objective, options = RUNS[name]
    family, settings = settings_of(name)
    make(family, objective, tmp_path, options=options, **settings | {"is_sharded": False}).train()
    one, both = (read_rows(folder / "metrics.jsonl") for folder in (tmp_path, two / name))
    assert [row["step"] for row in both] == [0, 1]
    for alone, shared in zip(one, both, strict=True):
        for key in ("loss", "grad_norm", "reward", "entropy", "ratio_dev_u0", "rows_updated", "num_rollouts"):
            assert shared[key] == pytest.approx(alone[key], rel=1e-5, abs=1e-5), key
    assert any(row["loss"] != 0 for row in one)
    assert [row["plan"] for row in read_rows(two / name / "rollouts.jsonl")] == [
        row["plan"] for row in read_rows(tmp_path / "rollouts.jsonl")
    ]
    weights = [load_file(folder / "checkpoint" / "model.safetensors") for folder in (tmp_path, two / name)]
    assert all(("lora_" in key) == ("adapter" in name) for key in weights[0])
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in RUNS if " " in name])
def test_two_processes_resume_bit_for_bit(two, name):
    files = [two / name / folder / "checkpoint" for folder in ("", "resumed")]
    assert files[0].joinpath("model.safetensors").read_bytes() == files[1].joinpath("model.safetensors").read_bytes()
    states = [torch.load(folder / "optimiser.pt") for folder in files]
    for number, state in states[0]["state"].items():
        assert all(torch.equal(value, states[1]["state"][number][key]) for key, value in state.items())


def test_one_process_goes_on_from_the_shards_of_two(two, tmp_path):
    """A state holds whole weights, whatever number of processes wrote it."""
    name = "masked sharded"
    objective, options = RUNS[name]
    family, settings = settings_of(name)
    shutil.copytree(two / name, tmp_path / "run")
    settings |= {"is_sharded": False, "steps": 3}
    make(family, objective, tmp_path / "run", options=options, **settings).train()
    assert [row["step"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")] == [0, 1, 2]


def test_shards_that_nothing_fits_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="shards weights over processes, and this one runs alone"):
        make("masked", "grpo", tmp_path, is_sharded=True)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "launched_ranks", lambda devices: Ranks(number=0, count=2))
        with pytest.raises(ConfigError, match="shards what is trained, and this policy trains an adapter"):
            make("masked", "grpo", tmp_path, lora=LoraOptions(rank=2, targets=("up",)), is_sharded=True)
    with pytest.raises(ConfigError, match="policy 'a' has shards=8, and one process runs"):
        ALONE.refuse_shards(8, "policy 'a'")
    with pytest.raises(ConfigError, match=r"2 processes would share it\. Give device=cuda"):
        Ranks(number=1, count=2).refuse_shared("cuda:1")
    ALONE.refuse_shared("cuda:1")
    Ranks(number=1, count=2).refuse_shared("cuda")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="device=mps was given, and several processes were launched"):
        launched_ranks(["cpu", "mps"])


@pytest.mark.parametrize(
    ("name", "value", "way_out"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16", "`dtype`. Launch with --mixed_precision no"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "compiles nothing. Launch with --dynamo_backend no"),
        ("ACCELERATE_USE_FSDP", "true", "`shards` says so. Launch with --multi_gpu"),
    ],
)
def test_what_a_launcher_sets_and_no_digest_covers_is_refused(tmp_path, monkeypatch, name, value, way_out):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{name}={value}, and .*{re.escape(way_out)}"):
        make("masked", "grpo", tmp_path)
    monkeypatch.setenv(name, "no")
    make("masked", "grpo", tmp_path)


def test_the_policy_decides_where_it_is_trained(tmp_path, monkeypatch):
    """accelerate has one device for a process: here it is another one, as after a policy that was on a GPU."""
    for state in (PartialState, AcceleratorState):
        monkeypatch.setattr(state, "_shared_state", {})
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "meta")
    assert PartialState().device.type == "meta"
    made = make("masked", "espo", tmp_path, steps=1, target_kl=1.0)
    made.train()
    assert made.policy.device.type == "cpu"


@pytest.mark.parametrize("family", RUNS)
def test_each_process_ran_its_half_of_the_plans(two, family):
    """Two steps of 3 x 4 rollouts: six a step in each process, and none twice."""
    assert [(two / family / f"plans{rank}").read_text() for rank in (0, 1)] == ["6 6", "6 6"]


def test_shares_are_whole_and_even():
    for count in (1, 2, 3, 7):
        parts = [range(20)[Ranks(number=number, count=count).share(20)] for number in range(count)]
        assert [item for part in parts for item in part] == list(range(20))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_process_without_groups_does_nothing_and_a_step_of_too_few_rollouts_is_refused(tmp_path, monkeypatch):
    assert ALONE.gather(3) == [3] and ALONE.from_first("x") == "x"
    ALONE.leave()
    monkeypatch.setattr(trainer, "launched_ranks", lambda devices: Ranks(number=0, count=9))
    with pytest.raises(ConfigError, match="too few for 9 processes"):
        make("masked", "grpo", tmp_path, prompts_per_step=2, group_size=4)
