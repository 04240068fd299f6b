"""The engine of vLLM, against its documented interface (`recorded_vllm`); against itself where it is installed."""

from __future__ import annotations

import pytest
import torch

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.load_options import LoraOptions
from dllm_rl.testing.policies import prompts_of
from samplers.engines import vllm_engine
from samplers.engines.weights import named_weights
from tests.samplers.engines import recorded_vllm
from tests.samplers.engines.decoder import qwen3
from tests.samplers.engines.test_continuous_batching import scored


@pytest.fixture
def vllm(monkeypatch):
    monkeypatch.setattr(vllm_engine, "_STARTED", {})
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    recorded_vllm.install(monkeypatch)
    return recorded_vllm.LLM


def written(policy, rows: int, temperature: float, *, seed: int = 0, engine: str = "vllm"):
    options = {} if engine == "" else {"engine": {"name": engine}}
    sampler = registry.build("sampler", "ar", options, temperature=temperature)
    return sampler.generate(policy, prompts_of(policy, range(rows)), seed=seed)


def changed(policy, part: str) -> None:
    """Move the weights whose names have this part."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if part in name:
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.3)


@pytest.mark.parametrize("is_tied", [False, True])
def test_it_writes_with_the_weights_that_the_policy_has_now(tmp_path, vllm, is_tied):
    policy = qwen3(tmp_path, is_tied=is_tied)
    for _ in range(2):
        found, own = written(policy, 4, 0.0), written(policy, 4, 0.0, engine="")
        assert torch.equal(found.ids, own.ids)
        torch.testing.assert_close(found.trajectory.log_probs, own.trajectory.log_probs, atol=1e-4, rtol=0)
        changed(policy, "down_proj")
    assert vllm.started == 1 and not torch.equal(found.ids, written(policy, 4, 0.0).ids)


def test_an_adapter_is_handed_over_in_the_weights_and_the_policy_keeps_its_own(tmp_path, vllm):
    policy = qwen3(tmp_path, lora=LoraOptions(rank=2))
    changed(policy, "lora_B")
    before = {name: weight.clone() for name, weight in policy.model.named_parameters()}
    found, own = written(policy, 4, 0.0), written(policy, 4, 0.0, engine="")
    assert torch.equal(found.ids, own.ids)
    assert all(torch.equal(weight, before[name]) for name, weight in policy.model.named_parameters())
    handed = dict(named_weights(policy.model))
    merged = dict(policy.model.merge_and_unload().named_parameters())
    assert handed.keys() == merged.keys()
    for name, weight in merged.items():
        torch.testing.assert_close(handed[name], weight)


def test_log_probabilities_are_those_of_the_draws(tmp_path, vllm):
    """Without banned tokens, at the temperature; the policy's end ends a row, and not the checkpoint's."""
    policy = qwen3(tmp_path)
    out = written(policy, 6, 0.7)
    torch.testing.assert_close(
        out.trajectory.log_probs[out.mask], scored(policy, 6, out, 0.7)[out.mask], atol=1e-4, rtol=0
    )
    assert not set(policy.banned_ids) & set(out.ids[out.mask].tolist())
    assert torch.equal(written(policy, 3, 0.7).ids, out.ids[:3]), "noise is the row's own"
    assert not torch.equal(written(policy, 6, 0.7, seed=1).ids, out.ids)


def test_policies_of_an_architecture_share_one_engine(tmp_path, vllm):
    one, two = (qwen3(tmp_path / name) for name in "ab")
    changed(two, "down_proj")
    first, second = written(one, 2, 0.0), written(two, 2, 0.0)
    assert vllm.started == 1 and not torch.equal(first.ids, second.ids)
    assert torch.equal(written(one, 2, 0.0).ids, first.ids)
    del one, two
    written(qwen3(tmp_path / "c", facts={"max_prompt": 130}), 2, 0.0)
    assert vllm.started == 2 and len(vllm_engine._STARTED) == 1, "one that no policy uses any more is dropped"


def test_what_it_cannot_do_is_refused(tmp_path, vllm, monkeypatch):
    policy = qwen3(tmp_path)
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        with pytest.raises(ConfigError, match="several processes were launched, which it would take for its own"):
            written(policy, 2, 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(type(policy), "device", torch.device("cuda:1"))
        with pytest.raises(ConfigError, match=r"policy on cuda:1.*CUDA_VISIBLE_DEVICES=1, with device=cuda"):
            written(policy, 2, 1.0)
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'dllm-rl\[vllm\]'"):
        written(policy, 2, 1.0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="vLLM is run on a GPU, and here is none")
def test_vllm_itself_writes_the_policys_tokens(tmp_path):
    pytest.importorskip("vllm", reason="vllm is not installed; it asks for a GPU and a PyTorch of its own")
    policy = qwen3(tmp_path, device="cuda")
    found, own = written(policy, 8, 0.0), written(policy, 8, 0.0, engine="")
    assert (found.ids == own.ids).float().mean() > 0.9
    drawn = written(policy, 8, 1.0)
    difference = (drawn.trajectory.log_probs - scored(policy, 8, drawn, 1.0).cpu()).abs()[drawn.mask]
    assert difference.mean() < 0.01
    changed(policy, "down_proj")
    assert not torch.equal(written(policy, 8, 0.0).ids, found.ids)
