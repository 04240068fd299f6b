"""Checkpoints that ship stay small, and further ones of a family share the tokenizer of its first one."""

from __future__ import annotations

import pytest

from dllm_rl import registry
from dllm_rl.errors import CheckpointError
from dllm_rl.policies.checkpoints import CHECKPOINTS, builtin_names, checkpoint_digest
from dllm_rl.policies.loading import load_policy
from experiments.design.config import Component, PolicyLevel
from experiments.design.presets import load_preset

MOST_BYTES_A_FAMILY = 5 * 2**20
FINISH = [name for name in builtin_names() if name.endswith("_finish")]
EPISODES = [name for name in builtin_names() if name.endswith("_episodes")]


@pytest.mark.parametrize("family", registry.names("policy"))
def test_files_of_a_family_stay_small(family: str) -> None:
    folders = [CHECKPOINTS / name for name in builtin_names() if name in (family, f"{family}_finish")]
    assert sum(path.stat().st_size for folder in folders for path in folder.iterdir()) < MOST_BYTES_A_FAMILY


@pytest.mark.parametrize("name", EPISODES)
def test_files_of_a_policy_for_episodes_stay_small(name: str) -> None:
    assert sum(path.stat().st_size for path in (CHECKPOINTS / name).iterdir()) < MOST_BYTES_A_FAMILY


@pytest.mark.parametrize("name", FINISH)
def test_a_further_checkpoint_of_a_family_shares_its_tokenizer(name: str) -> None:
    family = name.removesuffix("_finish")
    first, further = load_policy(f"builtin:{family}"), load_policy(f"builtin:{name}")
    level = PolicyLevel(
        checkpoint=f"builtin:{name}", sampler=Component(name=registry.get("policy", family).usual_sampler)
    )
    assert further.family == level.family == family
    assert further.facts == first.facts
    assert further.tokenizer.get_vocab() == first.tokenizer.get_vocab()
    assert checkpoint_digest(f"builtin:{name}") != checkpoint_digest(f"builtin:{family}")


def test_every_family_of_the_presets_has_both() -> None:
    assert {f"{family}_finish" for family in ("autoregressive", "block", "flow", "masked", "slot")} == set(FINISH)


def test_every_policy_of_the_preset_of_episodes_ships() -> None:
    preset = load_preset("episodes")
    assert {level.checkpoint for level in preset.policies.values()} == {f"builtin:{name}" for name in EPISODES}


def test_a_wrong_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(CheckpointError, match="Did you mean 'masked_finish'"):
        load_policy("builtin:masked_finsh")
