"""How a checkpoint is loaded: adapters that load back, activations computed again, devices that are not there."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from dllm_rl.errors import CheckpointError, ConfigError
from dllm_rl.load_options import LoadOptions, LoraOptions
from dllm_rl.policies.devices import at_place, usable_device
from dllm_rl.policies.loading import load_policy, save_policy
from dllm_rl.training.checkpoint import load_state, save_state
from dllm_rl.training.optimiser import MasterWeights, adamw
from dllm_rl.training.reference import is_fresh_adapter
from tests.dllm_rl.policies import checkpoints
from tests.tiny_policies import PLANS, PROMPTS, make_tiny_policy

FACTS = {"family": "masked", "max_prompt": 96, "canvas_length": 36}
KINDS = ("adamw", "adamw_8bit")
LORA = LoraOptions(rank=2, targets=("q_proj", "v_proj"))


def loss_of(policy) -> torch.Tensor:
    canvas = torch.tensor([policy.canvas.encode(plan) for plan in PLANS])
    terms = policy.logits(policy.prompts(PROMPTS, range(3)), canvas).log_softmax(dim=-1)
    return -terms.gather(-1, canvas[..., None]).clamp(min=-1e4).mean()


def take_steps(policy, *, rate: float, count: int = 2):
    trained = [weight for weight in policy.model.parameters() if weight.requires_grad]
    optimiser = adamw(trained, lr=rate, eps=1e-8, weight_decay=0.0)
    for _ in range(count):
        loss_of(policy).backward()
        optimiser.step()
        optimiser.zero_grad()
    return optimiser


def test_an_adapter_is_saved_alone_and_loads_back_on_its_checkpoint(tmp_path):
    path, _ = checkpoints.a2d(tmp_path / "base")
    policy = load_policy(path, facts=FACTS, options=LoadOptions(lora=LORA))
    assert is_fresh_adapter(policy.model)
    take_steps(policy, rate=1e-2)
    save_policy(policy, tmp_path / "adapter")
    assert not list((tmp_path / "adapter").glob("model*.safetensors"))
    again = load_policy(str(tmp_path / "adapter"))
    assert again.facts == policy.facts and not is_fresh_adapter(again.model)
    with torch.no_grad():
        assert torch.equal(loss_of(again), loss_of(policy))
        assert not torch.equal(loss_of(again), loss_of(load_policy(path, facts=FACTS)))
    with pytest.raises(ConfigError, match="lora would put another one on it"):
        load_policy(str(tmp_path / "adapter"), options=LoadOptions(lora=LORA))


def test_an_adapter_is_refused_on_other_weights_than_it_was_trained_on(tmp_path):
    path, _ = checkpoints.a2d(tmp_path / "base")
    save_policy(load_policy(path, facts=FACTS, options=LoadOptions(lora=LORA)), tmp_path / "adapter")
    (tmp_path / "base" / "README.md").write_text("Trained on plans.")
    again = load_policy(str(tmp_path / "adapter"))
    save_policy(again, tmp_path / "copy")
    for file in (tmp_path / "base").glob("*.safetensors"):
        save_file({name: 2 * value for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    for name in ("adapter", "copy"):
        with pytest.raises(CheckpointError, match="was trained on other weights"):
            load_policy(str(tmp_path / name))


def test_an_adapter_on_a_folder_that_is_not_here_is_not_sought_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints.a2d(tmp_path / "mine" / "base")
    save_policy(load_policy("mine/base", facts=FACTS, options=LoadOptions(lora=LORA)), tmp_path / "adapter")
    monkeypatch.chdir(tmp_path / "mine")
    with pytest.raises(CheckpointError, match=r"trained on the checkpoint 'mine/base', which was not found in \S+"):
        load_policy(str(tmp_path / "adapter"))


def test_an_adapter_loads_on_the_commit_that_it_was_trained_on(tmp_path, monkeypatch):
    """A checkpoint of the hub, in the cache of downloads, whose branch goes on to other weights."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    repo, old, new = tmp_path / "cache" / "models--someone--model", "a" * 40, "b" * 40
    for commit, is_tied in ((old, True), (new, False)):
        checkpoints.a2d(repo / "snapshots" / commit, is_tied=is_tied)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(old)
    policy = load_policy("someone/model", facts=FACTS, options=LoadOptions(lora=LORA))
    save_policy(policy, tmp_path / "adapter")
    (repo / "refs" / "main").write_text(new)
    with torch.no_grad():
        assert torch.equal(loss_of(load_policy(str(tmp_path / "adapter"))), loss_of(policy))
        assert not torch.equal(loss_of(load_policy("someone/model", facts=FACTS)), loss_of(policy))
    with pytest.raises(ConfigError, match=f"revision={new} was given.*trained on revision {old}"):
        load_policy(str(tmp_path / "adapter"), options=LoadOptions(revision=new))


@pytest.mark.parametrize("lora", [None, LORA])
def test_tied_embeddings_are_kept_through_a_state_and_an_adapter_is_kept_alone(tmp_path, lora):
    path, _ = checkpoints.a2d(tmp_path / "base", is_tied=True)
    options = LoadOptions(lora=lora, dtype="float32")
    policy = load_policy(path, facts=FACTS, options=options)
    optimiser = take_steps(policy, rate=1e-2)
    save_state(tmp_path, step=2, model=policy.model, optimiser=optimiser)
    again = load_policy(path, facts=FACTS, options=options)
    assert load_state(tmp_path, model=again.model, optimiser=take_steps(again, rate=1e-2, count=1)) == 2
    with torch.no_grad():
        assert torch.equal(loss_of(again), loss_of(policy))
    size = (tmp_path / "checkpoint" / "model.safetensors").stat().st_size
    assert (size < 10_000) == (lora is not None)
    other = load_policy(path, facts=FACTS, options=LoadOptions(lora=None if lora else LORA))
    with pytest.raises(CheckpointError, match="other weights than this model trains"):
        load_state(tmp_path, model=other.model, optimiser=optimiser)


@pytest.mark.parametrize("rate", [1e-6, 1e-5])
def test_weights_in_half_precision_move_as_in_float32(tmp_path, rate):
    """On the same gradients; without the copies 2 % of them moved at a rate of 1e-6."""
    torch.manual_seed(0)
    start = (0.02 * torch.randn(4000)).bfloat16()
    half, full = start.clone().requires_grad_(), start.float().requires_grad_()
    optimisers = [adamw([weight], lr=rate, weight_decay=0.0) for weight in (half, full)]
    for _ in range(20):
        gradient = torch.randn(4000).bfloat16()
        half.grad, full.grad = gradient, gradient.float()
        for optimiser in optimisers:
            optimiser.step()
    assert isinstance(optimisers[0], MasterWeights)
    assert torch.equal(optimisers[0].masters[0], full.detach())
    assert torch.equal(half.detach(), full.detach().bfloat16())


def test_a_resumed_run_in_half_precision_is_the_same_run():
    def steps(optimiser, weight, seeds):
        for seed in seeds:
            weight.grad = torch.randn(50, generator=torch.Generator().manual_seed(seed)).bfloat16()
            optimiser.step()

    whole = torch.zeros(50, dtype=torch.bfloat16, requires_grad=True)
    optimiser = adamw([whole], lr=1e-3)
    steps(optimiser, whole, range(3))
    state = copy.deepcopy(optimiser.state_dict())
    later = whole.detach().clone().requires_grad_()
    resumed = adamw([later], lr=1e-3)
    resumed.load_state_dict(state)
    steps(optimiser, whole, range(3, 6))
    steps(resumed, later, range(3, 6))
    assert torch.equal(resumed.masters[0], optimiser.masters[0]) and torch.equal(whole, later)


def test_a_state_that_was_written_on_a_gpu_is_read_on_a_machine_without_one(tmp_path, monkeypatch):
    policy = make_tiny_policy("masked")
    optimiser = take_steps(policy, rate=1e-2)
    with monkeypatch.context() as patch:
        # What PyTorch notes beside each tensor of a GPU.
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        save_state(tmp_path, step=2, model=policy.model, optimiser=optimiser)
    with pytest.raises(RuntimeError, match="deserialize object on a CUDA device"):
        torch.load(tmp_path / "checkpoint" / "optimiser.pt", weights_only=True)
    again = make_tiny_policy("masked")
    later = take_steps(again, rate=1e-2, count=1)
    assert load_state(tmp_path, model=again.model, optimiser=later) == 2
    given, found = optimiser.state_dict()["state"], later.state_dict()["state"]
    assert all(torch.equal(found[number][name], value) for number in given for name, value in given[number].items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_averages_in_8_bits_move_weights_nearly_as_whole_ones(dtype):
    """Over masters in half precision, too; a quarter of the memory and a little for the scales of blocks."""
    pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    start = (0.02 * torch.randn(8192)).to(dtype)
    pair = [start.clone().requires_grad_() for _ in range(2)]
    optimisers = [
        adamw([weight], lr=1e-3, weight_decay=0.0, kind=kind) for weight, kind in zip(pair, KINDS, strict=True)
    ]
    slope = torch.randn(8192)
    for _ in range(20):
        gradient = (slope + torch.randn(8192)).to(dtype)
        for weight, optimiser in zip(pair, optimisers, strict=True):
            weight.grad = gradient.clone()
            optimiser.step()
    moved = [(weight.detach() - start).float() for weight in pair]
    assert torch.nn.functional.cosine_similarity(*moved, dim=0) > 0.99 and not torch.equal(*moved)
    (state,) = optimisers[1].state.values()
    assert state["state1"].dtype == state["state2"].dtype == torch.uint8
    assert isinstance(optimisers[1], MasterWeights) == (dtype == torch.bfloat16)


def test_an_optimiser_without_its_package_and_in_shards_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(ConfigError, match=r"pip install 'dllm-rl\[bitsandbytes\]'"):
        adamw([torch.zeros(2, requires_grad=True)], kind="adamw_8bit", lr=1.0)
    with pytest.raises(ValueError, match="adamw_8bit cannot have divided"):
        LoadOptions(shards=2, optimiser="adamw_8bit")


def test_the_optimiser_decides_numbers_and_is_part_of_what_results_are_keyed_by():
    assert LoadOptions().deciding == {}
    assert LoadOptions(optimiser="adamw_8bit").deciding == {"optimiser": "adamw_8bit"}


def test_activations_are_computed_again_and_gradients_are_the_same(tmp_path):
    path, _ = checkpoints.a2d(tmp_path)
    calls = []
    gradients = []
    for is_again in (False, True):
        options = LoadOptions(dtype="float32", gradient_checkpointing=is_again)
        policy = load_policy(path, facts=FACTS, options=options)
        layer = policy.model.model.layers[0].self_attn
        layer.register_forward_hook(lambda *_: calls.append(1))
        calls.clear()
        loss_of(policy).backward()
        assert len(calls) == 1 + is_again
        gradients.append([weight.grad.clone() for weight in policy.model.parameters()])
        with torch.no_grad():
            loss_of(policy)
        assert not layer.training
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "flex_attention"}, "kernels have no backward pass"),
        ({"attention": "eager"}, "the built-in model has one attention of its own"),
        ({"gradient_checkpointing": True}, "TinyForPlans cannot compute its activations again"),
        ({"lora": LoraOptions(targets=("q_proj",))}, "Its linear layers: down, out, qkv"),
    ],
)
def test_what_cannot_be_had_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        load_policy("builtin:masked", options=LoadOptions(**options))


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"device=cuda was given; this machine has 0 .* Take device=cpu"):
        load_policy("builtin:masked", options=LoadOptions(device="cuda"))


def test_plain_cuda_is_the_gpu_of_the_place_and_a_named_one_is_itself(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for place, expected in ((0, "cuda:0"), (1, "cuda:1"), (2, "cuda:0")):
        with at_place(place):
            assert usable_device(LoadOptions(device="cuda")) == torch.device(expected)
            assert usable_device(LoadOptions(device="cuda:1")) == torch.device("cuda:1")
            assert usable_device(LoadOptions()) == torch.device("cpu")
    assert usable_device(LoadOptions(device="cuda")) == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with at_place(1), pytest.raises(ConfigError, match="device=cuda was given; this machine has 0"):
        usable_device(LoadOptions(device="cuda"))


def test_each_of_several_processes_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert usable_device(LoadOptions(device="cuda")) == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert usable_device(LoadOptions(device="cuda")) == torch.device("cuda:1")
    assert usable_device(LoadOptions(device="cuda:0")) == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="device=cuda:2 was given; this machine has 2"):
        usable_device(LoadOptions(device="cuda"))
