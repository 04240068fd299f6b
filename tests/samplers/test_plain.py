"""Speed changes nothing: the samplers give the tokens, log-probabilities and states of the plain loops."""

from __future__ import annotations

import pytest
import torch

import samplers.loop.sampling as chunks
from dllm_rl import registry
from tests.samplers.plain import flow_exact, low_confidence, slots
from tests.tiny_policies import PROMPTS

PLAIN = {
    "masked": ("low_confidence", low_confidence.LowConfidenceSampler),
    "slot": ("slots", slots.SlotSampler),
    "flow": ("flow_exact", flow_exact.FlowExactSampler),
}
OPTIONS = [
    ("masked", {"num_steps": 36}),
    ("masked", {"num_steps": 7, "block_length": 10}),
    ("slot", {}),
    ("slot", {"slot_threshold": 0.9, "token_threshold": 0.95}),
    ("flow", {"num_steps": 6}),
]


@pytest.mark.parametrize("tokens_a_chunk", [100, 2048])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize(("family", "options"), OPTIONS)
def test_equal_to_the_plain_loop(tiny_policies, monkeypatch, family, options, temperature, tokens_a_chunk):
    monkeypatch.setattr(chunks, "TOKENS_ON_CPU", tokens_a_chunk)
    policy = tiny_policies[family]
    rows = range(7)
    prompts = policy.prompts([PROMPTS[row % 3] for row in rows], rows)
    name, plain_class = PLAIN[family]
    plain = plain_class(temperature=temperature, **options).generate(policy, prompts, seed=5)
    fast = registry.get("sampler", name)(temperature=temperature, **options).generate(policy, prompts, seed=5)
    assert torch.equal(fast.ids, plain.ids)
    assert torch.equal(fast.mask, plain.mask)
    mine, theirs = fast.trajectory, plain.trajectory
    assert torch.equal(mine.commit_step, theirs.commit_step)
    assert torch.equal(mine.canvases, theirs.canvases)
    torch.testing.assert_close(mine.log_probs, theirs.log_probs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mine.entropy, theirs.entropy, atol=1e-5, rtol=1e-5)
    assert fast.token_forwards <= plain.token_forwards


def test_slot_orders_equal_the_plain_loop_where_a_row_commits(tiny_policies):
    policy = tiny_policies["slot"]
    prompts = policy.prompts(PROMPTS, range(3))
    plain = slots.SlotSampler().generate(policy, prompts, seed=5).trajectory
    fast = registry.get("sampler", "slots")().generate(policy, prompts, seed=5).trajectory
    for step in range(fast.num_steps):
        rows = (plain.commit_step == step).any(dim=1)
        assert torch.equal(plain.order[rows, step], fast.order[rows, step])
