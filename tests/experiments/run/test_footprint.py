"""Memory that a dry run tells: weights and optimiser to the byte, activations near what autograd keeps; refusals."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from dllm_rl.load_options import LoadOptions, LoraOptions
from dllm_rl.policies.adapters import adapted
from dllm_rl.policies.head import without_adapter
from dllm_rl.training.optimiser import adamw
from experiments.cli import app, memory
from experiments.run.footprint import Workload, activations, footprint, what_fits
from samplers.loop.sampling import rows_at_once
from tests.dllm_rl.policies import checkpoints

WORK = Workload(rows=2, sampled=4, width=64, columns=16, has_reference=True)
KEYS = {
    "float32": LoadOptions(dtype="float32"),
    "bfloat16": LoadOptions(dtype="bfloat16"),
    "adapter": LoadOptions(dtype="bfloat16", lora=LoraOptions(rank=4)),
}


def model_of(options: LoadOptions):
    config = checkpoints.stock("llama", vocab_size=300).config
    config.num_hidden_layers = 3
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, str(options.dtype)))
    return config, plain if options.lora is None else adapted(plain, options.lora)


@pytest.mark.parametrize("name", KEYS)
def test_weights_and_optimiser_are_told_to_the_byte(name):
    config, model = model_of(KEYS[name])
    parts = footprint(config, KEYS[name], WORK)
    sizes = {True: 0, False: 0}
    for weight in model.parameters():
        sizes[weight.requires_grad] += weight.numel() * weight.element_size()
        weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
    assert parts["weights"] + parts.get("adapter", 0) == sum(sizes.values())
    assert parts["gradients"] == sizes[True]
    optimiser = adamw([weight for weight in model.parameters() if weight.requires_grad], lr=1e-3)
    optimiser.step()
    kept = [value for state in optimiser.state.values() for key, value in state.items() if key.startswith("exp_avg")]
    assert parts["AdamW"] == sum(value.numel() * value.element_size() for value in kept)
    assert ("master weights and their gradients" in parts) == (name == "bfloat16")
    assert ("reference policy" in parts) == (name != "adapter")


@pytest.mark.parametrize("name", KEYS)
def test_activations_are_what_autograd_keeps(name):
    config, model = model_of(KEYS[name])
    width, kept = 48, {}
    own = {weight.untyped_storage()._cdata for weight in (*model.parameters(), *model.buffers())}
    dtype = getattr(torch, str(KEYS[name].dtype))
    mask = torch.zeros(1, 1, width, width, dtype=dtype)
    ids = torch.arange(width)[None]
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.setdefault(x.untyped_storage()._cdata, x) is None or x, lambda x: x
    ):
        out = without_adapter(model).get_decoder()(ids, attention_mask=mask, position_ids=ids, use_cache=False)
    measured = sum(x.untyped_storage().nbytes() for place, x in kept.items() if place not in own)
    assert activations(config, dtype, width, KEYS[name]) == pytest.approx(measured, rel=0.05)
    assert out is not None


def test_what_fits_names_the_settings_that_help():
    config, _ = model_of(KEYS["float32"])
    total = sum(footprint(config, LoadOptions(dtype="float32"), WORK).values())
    assert what_fits(config, LoadOptions(dtype="float32"), WORK, total) == []
    assert what_fits(config, LoadOptions(dtype="float32"), WORK, total - 1) == ["gradient_checkpointing: true"]
    config.hidden_size, config.intermediate_size, config.head_dim = 256, 768, 64
    total = sum(footprint(config, LoadOptions(dtype="float32"), WORK).values())
    assert "lora: {rank: 16}" in (what_fits(config, LoadOptions(dtype="float32"), WORK, total // 3) or [])
    assert what_fits(config, LoadOptions(dtype="float32"), WORK, 1000) is None


def dry_run(path: str, tmp_path, *more: str):
    level = [f"policies.masked.checkpoint={path}", "policies.masked.facts={canvas_length: 8, max_prompt: 200}"]
    words = ["grid", "toy_sort", "policies=[masked]", "objectives=[espo]", *level, *more]
    return CliRunner().invoke(app, [*words, "--dry-run", "--out", str(tmp_path / "out")])


def test_a_dry_run_prints_memory_by_part_and_refuses_what_cannot_fit(tmp_path, monkeypatch):
    path, _ = checkpoints.llada(tmp_path / "published")
    done = dry_run(path, tmp_path)
    assert done.exit_code == 0, done.output
    for part in ("weights", "gradients", "AdamW", "master weights", "activations", "in all"):
        assert part in done.output
    monkeypatch.setattr(memory, "capacity", lambda device: 2_000_000)
    refused = dry_run(path, tmp_path, "policies.masked.dtype=float32", "train.micro_batch_rows=64")
    assert "It would fit with gradient_checkpointing: true" in str(refused.exception)


def test_a_checkpoint_that_is_not_here_is_not_guessed_at(tmp_path):
    done = dry_run("nobody/nothing", tmp_path, "policies.masked.facts.family=masked")
    assert done.exit_code == 0, done.output
    assert "not known before nobody/nothing is on this disk" in " ".join(done.output.split())


def test_on_an_accelerator_logits_bound_a_batch():
    assert rows_at_once(torch.device("cpu"), 512, 10**9) == 4
    assert rows_at_once(torch.device("cuda"), 512, 128 * 126_464) == 16
    assert rows_at_once(torch.device("cuda"), 512, 10**12) == 1
