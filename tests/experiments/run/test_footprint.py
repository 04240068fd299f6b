"""Memory that a dry run tells: weights and optimiser to the byte, activations near what autograd keeps; refusals."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from transformers import AutoConfig, AutoModelForCausalLM
from typer.testing import CliRunner

from benchmarks.own_checkpoint import SHAPES
from dllm_rl.errors import ConfigError
from dllm_rl.load_options import LoadOptions, LoraOptions
from dllm_rl.policies.adapters import adapted
from dllm_rl.policies.base import PolicyFacts
from dllm_rl.policies.head import without_adapter
from dllm_rl.policies.loading import load_policy, save_policy
from dllm_rl.policies.tiles import TILE
from dllm_rl.training.optimiser import adamw
from experiments.cli import app, memory
from experiments.design.grid import build_cells
from experiments.design.presets import load_preset
from experiments.run.footprint import Workload, activations, footprint, shards_that_fit, what_fits
from samplers.loop.sampling import rows_at_once
from tests.dllm_rl.policies import checkpoints

WORK = Workload(rows=2, sampled=4, width=64, columns=16, has_reference=True)
KEYS = {
    "float32": LoadOptions(dtype="float32"),
    "bfloat16": LoadOptions(dtype="bfloat16"),
    "adapter": LoadOptions(dtype="bfloat16", lora=LoraOptions(rank=4)),
    "8 bits": LoadOptions(dtype="bfloat16", optimiser="adamw_8bit"),
}


def model_of(options: LoadOptions):
    config = checkpoints.stock("llama", vocab_size=300).config
    config.num_hidden_layers = 3
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, str(options.dtype)))
    return config, plain if options.lora is None else adapted(plain, options.lora)


@pytest.mark.parametrize("name", KEYS)
def test_weights_and_optimiser_are_told_to_the_byte(name):
    if name == "8 bits":
        pytest.importorskip("bitsandbytes")
    config, model = model_of(KEYS[name])
    parts = footprint(config, KEYS[name], WORK)
    sizes = {True: 0, False: 0}
    for weight in model.parameters():
        sizes[weight.requires_grad] += weight.numel() * weight.element_size()
        weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
    assert parts["weights"] + parts.get("adapter", 0) == sum(sizes.values())
    assert parts["gradients"] == sizes[True]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = adamw(trained, kind=KEYS[name].optimiser, lr=1e-3)
    optimiser.step()
    averages = ("exp_avg", "exp_avg_sq", "state1", "state2", "absmax1", "absmax2")
    kept = [state[key] for state in optimiser.state.values() for key in averages if key in state]
    assert parts["AdamW"] == sum(value.numel() * value.element_size() for value in kept)
    assert ("master weights and their gradients" in parts) == (name in ("bfloat16", "8 bits"))
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


def test_shards_are_parts_of_all_but_what_is_gathered():
    config, _ = model_of(KEYS["bfloat16"])
    whole, options = footprint(config, KEYS["bfloat16"], WORK), KEYS["bfloat16"].model_copy(update={"shards": 4})
    parts = footprint(config, options, WORK)
    for name in ("weights", "gradients", "AdamW", "master weights and their gradients", "reference policy"):
        assert parts[name] == pytest.approx(whole[name] / 4, abs=1)
    assert {"gathered weights", "gathered layers and their gradients"} & parts.keys()
    long = replace(WORK, sampled=64)
    assert footprint(config, options, long)["gathered weights"] == whole["weights"]


def test_a_large_vocabulary_is_read_in_tiles_and_costs_no_more():
    config, _ = model_of(KEYS["adapter"])
    config.vocab_size = 50_000
    rows = [sum(footprint(config, KEYS["adapter"], replace(WORK, rows=rows, sampled=0)).values()) for rows in (8, 16)]
    kept = 8 * activations(config, torch.bfloat16, WORK.width, KEYS["adapter"])
    assert WORK.columns * 8 * 50_000 * 4 < 4 * TILE < WORK.columns * 64 * 50_000 * 4
    more = [sum(footprint(config, KEYS["adapter"], replace(WORK, rows=rows, sampled=0)).values()) for rows in (64, 72)]
    assert more[1] - more[0] == kept < rows[1] - rows[0]


def test_shards_are_advised_where_they_help():
    config, _ = model_of(KEYS["bfloat16"])
    options = LoadOptions(dtype="bfloat16", device="cuda")
    limit = sum(footprint(config, options.model_copy(update={"shards": 4}), WORK).values())
    assert shards_that_fit(config, options, WORK, limit) == 4
    assert shards_that_fit(config, options, WORK, 1000) is None
    assert shards_that_fit(config, KEYS["adapter"], WORK, limit) is None


@pytest.mark.parametrize(("name", "gib"), [("llada_8b_lora", 30), ("dream_7b_fsdp", 60)])
def test_presets_for_gpus_of_80_gb_fit_them(name, gib):
    (cell,) = build_cells(load_preset(name))
    architecture, sizes = SHAPES["llada_8b" if name.startswith("llada") else "dream_7b"]
    config = AutoConfig.for_model(architecture, **sizes)
    facts = PolicyFacts.from_dict(cell.facts)
    work = Workload.of(cell, facts, config.vocab_size)
    parts = footprint(config, cell.loading, work)
    assert sum(parts.values()) < gib * 2**30
    if cell.loading.shards > 1:
        alone = cell.loading.model_copy(update={"shards": 1})
        assert sum(footprint(config, alone, work).values()) > 80 * 2**30


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
    monkeypatch.setattr(memory, "capacity", lambda device: 500_000)
    sharded = dry_run(path, tmp_path, "policies.masked.device=cuda", "policies.masked.shards=2")
    assert "on cuda, each of 2 devices, which has 0.0" in str(sharded.exception)


def test_a_checkpoint_that_is_not_here_is_not_guessed_at(tmp_path):
    done = dry_run("nobody/nothing", tmp_path, "policies.masked.facts.family=masked")
    assert done.exit_code == 0, done.output
    assert "not known before nobody/nothing is on this disk" in " ".join(done.output.split())


def test_on_an_accelerator_logits_bound_a_batch():
    assert rows_at_once(torch.device("cpu"), 512, 10**9) == 4
    assert rows_at_once(torch.device("cuda"), 512, 128 * 126_464) == 16
    assert rows_at_once(torch.device("cuda"), 512, 10**12) == 1


def test_memory_counts_stated_facts_the_reference_of_a_trained_adapter_and_the_largest_cell(tmp_path, monkeypatch):
    path, _ = checkpoints.llada(tmp_path / "published")
    facts = {"canvas_length": 96, "max_prompt": 200}
    adapted_policy = load_policy(path, facts=facts, options=LoadOptions(lora=LoraOptions(rank=2)))
    save_policy(adapted_policy, tmp_path / "adapter")
    level = f"policies.masked.checkpoint={tmp_path / 'adapter'}"
    cell = build_cells(
        load_preset("toy_sort", [level, "policies=[masked]", "objectives=[grpo]", "objectives.grpo.options.beta=0.1"])
    )[0]
    smaller = cell.model_copy(update={"train": {**cell.train, "micro_batch_rows": 8}})
    seen = []
    monkeypatch.setattr(memory, "footprint", lambda *given: seen.append(given) or footprint(*given))
    console = Console(record=True, width=200, file=io.StringIO())
    memory.print_memory([smaller, cell], console)
    assert [work.columns for *_, work in seen] == [96, 96]
    largest = footprint(*seen[1])
    assert sum(largest.values()) > sum(footprint(*seen[0]).values())
    assert largest["reference policy"] == largest["weights"] + largest["adapter"]
    monkeypatch.setattr(memory, "capacity", lambda device: sum(largest.values()) - 1)
    with pytest.raises(ConfigError, match="policy 'masked' needs about"):
        memory.print_memory([smaller, cell], console)
