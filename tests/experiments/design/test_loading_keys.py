"""Keys of a policy level that say how its weights are loaded: checked, recorded, and part of the digest where they
decide numbers.
"""

from __future__ import annotations

import pytest
import torch

from dllm_rl.errors import ConfigError
from experiments.cli.policy_keys import as_overrides, read_policy_keys
from experiments.design.grid import build_cells
from experiments.design.overrides import apply_override
from experiments.design.presets import load_preset
from experiments.design.units import training_digest
from experiments.run import policies

MASKED = ["policies=[masked]", "controls=[]"]


def cell(*overrides: str):
    return build_cells(load_preset("quick", [*MASKED, *overrides]))[0]


def digest_of(*overrides: str) -> str:
    return training_digest(cell(*overrides), checkpoint="c", tasks="t")


def test_keys_reach_the_cell():
    found = cell("policies.masked.device=cuda:1", "policies.masked.lora={rank: 4, targets: [qkv]}").loading
    assert (found.device, found.lora.rank, found.lora.targets, found.dtype) == ("cuda:1", 4, ("qkv",), None)


DECIDING = ["dtype=bfloat16", "attention=eager", "lora.rank=4", "revision=abc", "trust_remote_code=true"]


@pytest.mark.parametrize("key", DECIDING)
def test_what_decides_numbers_is_part_of_the_digest(key):
    assert digest_of(f"policies.masked.{key}") != digest_of()


@pytest.mark.parametrize("key", ["device=cuda", "gradient_checkpointing=true", "trust_remote_code=false", "shards=8"])
def test_what_decides_no_number_is_not(key):
    assert digest_of(f"policies.masked.{key}") == digest_of()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("devise=cuda", "Did you mean 'device'"),
        ("device=gpu", "lora|device"),
        ("dtype=fp8", "dtype"),
        ("attention=flash_attention_2", "attention"),
        ("lora.rank=0", r"lora\.rank"),
        ("shards=0", "shards"),
    ],
)
def test_wrong_keys_are_refused_by_name(key, message):
    with pytest.raises(ConfigError, match=message):
        load_preset("quick", [*MASKED, f"policies.masked.{key}"])
    with pytest.raises(ConfigError, match=message):
        read_policy_keys([key])


def test_the_option_sets_every_level_of_a_preset():
    overrides = as_overrides("quick", ["policies=[masked, slot]"], ["dtype=bfloat16"])
    levels = load_preset("quick", overrides).policies
    assert {name: level.dtype for name, level in levels.items()} == {"masked": "bfloat16", "slot": "bfloat16"}


def test_the_option_gives_facts_too():
    facts, options = read_policy_keys(["facts.family=block", "facts.block_size=4", "device=cuda"])
    assert (facts, options.device) == ({"family": "block", "block_size": 4}, "cuda")


def test_an_adapter_is_not_sharded():
    with pytest.raises(ConfigError, match="shards=2 is for training all weights"):
        cell("policies.masked.shards=2", "policies.masked.lora.rank=4")


@pytest.mark.parametrize("key", ["shards=2", "gradient_checkpointing=true", "lora.rank=2", "optimiser=adamw_8bit"])
def test_what_is_about_training_is_refused_where_a_policy_only_writes(key):
    with pytest.raises(ConfigError, match="about training, and nothing is trained here"):
        read_policy_keys([key])


OWN = ["reward=outcome", "environment=episodes", "policies=[masked]", "controls=[]"]


def own_cell(keys: str):
    own = f"{{checkpoint: 'builtin:slot', sampler: slots{keys}}}"
    return build_cells(load_preset("episodes_quick", [*OWN, f"policies.masked.roles={{own: {{grounder: {own}}}}}"]))[0]


def own_digest(keys: str) -> str:
    return training_digest(own_cell(keys), checkpoint="c", tasks="t")


def test_a_policy_that_a_role_has_of_its_own_takes_the_keys_of_loading():
    found = own_cell(", device: 'cuda:1', dtype: bfloat16").roles.own["grounder"].loading
    assert (found.device, found.dtype) == ("cuda:1", "bfloat16")
    assert own_digest(", device: cuda") == own_digest("")
    changed = [own_digest(f", {key}") for key in ("dtype: bfloat16", "revision: abc", "trust_remote_code: true")]
    assert len({own_digest(""), *changed}) == 4


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (", lora: {rank: 2}", r"grounder.*lora=.* is about training, and a policy that a role has of its own is not"),
        (", gradient_checkpointing: true", "gradient_checkpointing=True is about training"),
        (", shards: 2", "shards=2 is about training"),
        (", optimiser: adamw_8bit", "optimiser=adamw_8bit is about training"),
        (", devise: cuda", "Did you mean 'device'"),
        (", facts: {slot_sise: 4}", "Did you mean 'slot_size'"),
        (", facts: {block_size: 4}", "the slot family does not read it"),
    ],
)
def test_what_a_policy_of_a_role_cannot_have_is_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        own_cell(keys)


def test_a_grammar_of_a_roles_own_sampler_is_refused_in_episodes():
    own = "{checkpoint: 'builtin:slot', sampler: {name: slots, options: {grammar: true}}}"
    with pytest.raises(
        ConfigError, match=r"policies\.masked\.roles\.own\.grounder\.sampler\.options\.grammar was given"
    ):
        build_cells(load_preset("episodes_quick", [*OWN, f"policies.masked.roles={{own: {{grounder: {own}}}}}"]))


def test_a_policy_of_a_role_is_loaded_as_its_keys_say(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    team = policies.load_team(own_cell(", dtype: bfloat16").roles, temperature=1.0)
    assert team.own["grounder"].policy.model.dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="device=cuda was given; this machine has 0"):
        policies.load_team(own_cell(", device: cuda").roles, temperature=1.0)


def test_a_key_reaches_a_level_whose_name_has_dots():
    data = {"policies": {"llada-1.5": {"facts": {"family": "masked"}}, "llada-1": {}}}
    changed = apply_override(data, "policies.llada-1.5.facts.canvas_length=8")
    assert changed["policies"] == {"llada-1.5": {"facts": {"family": "masked", "canvas_length": 8}}, "llada-1": {}}


def test_policy_keys_reach_a_level_whose_name_has_dots(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "base: quick\npolicies:\n  masked: null\n  llada-1.5: {checkpoint: 'builtin:masked', "
        "sampler: low_confidence}\ncontrols: []\n"
    )
    found = load_preset(str(path), as_overrides(str(path), [], ["device=cuda"])).policies
    assert found["llada-1.5"].device == "cuda"
