"""The reference policy stays the warm start: a frozen copy, or the same model with its fresh adapter switched off."""

from __future__ import annotations

import pytest
import torch

from dllm_rl.errors import ConfigError
from dllm_rl.load_options import LoraOptions
from dllm_rl.policies.adapters import add_lora
from dllm_rl.training.reference import AdapterOff, is_fresh_adapter, reference_of
from tests.dllm_rl.training.test_trainer import TASKS, make, rollouts_of
from tests.tiny_policies import make_tiny_policy


def scores(policy, trainer):
    rollouts = rollouts_of(trainer.engine, TASKS[:1])
    views = trainer.policy.process.one_step(rollouts, torch.Generator())

    def of(scored):
        with torch.no_grad():
            return scored.view_log_probs(rollouts, views)

    return of(policy), of(trainer.policy), lambda: (of(policy), of(trainer.policy))


def test_without_an_adapter_it_is_a_copy_that_training_does_not_move(tmp_path) -> None:
    trainer = make("masked", "grpo", tmp_path, steps=1, learning_rate=1e-2)
    assert trainer.updater.reference is not None
    before, own, again = scores(trainer.updater.reference, trainer)
    assert torch.equal(before, own)
    trainer.train()
    after, moved = again()
    assert torch.equal(before, after) and not torch.equal(moved, before)


def test_objectives_without_a_penalty_hold_no_reference(tmp_path) -> None:
    assert make("masked", "grpo", tmp_path, options={"beta": 0.0}).updater.reference is None


def test_a_fresh_adapter_is_switched_off_and_alone_is_trained(tmp_path, monkeypatch) -> None:
    pytest.importorskip("peft")
    policy = make_tiny_policy("masked", sharpness=4.0)
    warm = {name: value.clone() for name, value in policy.model.state_dict().items()}
    add_lora(policy, LoraOptions(rank=2, targets=("qkv", "up")))
    assert is_fresh_adapter(policy.model)
    monkeypatch.setattr("tests.dllm_rl.training.test_trainer.make_tiny_policy", lambda *_, **__: policy)
    trainer = make("masked", "grpo", tmp_path, steps=1, learning_rate=1e-1)
    assert isinstance(trainer.updater.reference, AdapterOff)
    before, own, again = scores(trainer.updater.reference, trainer)
    assert torch.equal(before, own), "a fresh adapter changes nothing"
    trainer.train()
    after, moved = again()
    assert torch.equal(before, after) and not torch.equal(moved, before)
    trained = policy.model.get_base_model().state_dict()
    kept = {name: value for name, value in trained.items() if "lora_" not in name}
    assert len(kept) == len(warm)
    assert all(torch.equal(value, warm[name.replace("base_layer.", "")]) for name, value in kept.items())


def test_an_adapter_that_was_trained_before_is_part_of_the_warm_start(tmp_path) -> None:
    pytest.importorskip("peft")
    policy = make_tiny_policy("masked", sharpness=4.0)
    add_lora(policy, LoraOptions(rank=2, targets=("qkv",)))
    with torch.no_grad():
        for name, value in policy.model.named_parameters():
            if "lora_B" in name:
                value.fill_(0.1)
    assert not is_fresh_adapter(policy.model)
    assert not isinstance(reference_of(policy), AdapterOff)


def test_a_layer_that_is_not_there_is_named() -> None:
    pytest.importorskip("peft")
    with pytest.raises(ConfigError, match=r"no layer of this model is called q_proj\. Its linear layers: .*qkv"):
        add_lora(make_tiny_policy("masked"), LoraOptions(targets=("q_proj",)))
