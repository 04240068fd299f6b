"""Samplers write on an accelerator what they write on the CPU, and copy statistics of logits to it, not logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dllm_rl import registry
from dllm_rl.testing.policies import prompts_of, random_policy
from tests.accelerator import on_accelerator

FAMILIES = ("autoregressive", "masked", "block", "slot", "flow")
OPTIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("low_confidence", "masked", {"guidance": 0.5}),
    ("low_confidence", "masked", {"cache": "prefix", "block_length": 12}),
    ("low_confidence", "masked", {"cache": "dual", "block_length": 12}),
    ("slots", "slot", {"cache": "exact"}),
    ("slots", "slot", {"verification": True, "cache": "exact"}),
]
# Under a grammar automata are walked on the CPU.
GRAMMAR = [
    ("ar", "autoregressive"),
    ("threshold", "masked"),
    ("threshold", "block"),
    ("slots", "slot"),
    ("flow_exact", "flow"),
]


def defined() -> list[tuple[str, str, dict[str, Any]]]:
    """Every sampler with each of its families."""
    lineages = {family: set(random_policy(family).lineage()) for family in FAMILIES}
    return [
        (name, family, {})
        for name in registry.names("sampler")
        for family in FAMILIES
        if lineages[family] & set(registry.get("sampler", name).families)
    ]


def written(name: str, family: str, options: dict[str, Any]) -> tuple[Any, Any, int, int]:
    policy = random_policy(family)
    prompts = prompts_of(policy, range(3))
    sampler = registry.build("sampler", name, temperature=1.0, **options)
    wanted = sampler.generate(policy, prompts, seed=0)
    with on_accelerator(policy.model) as accelerator:
        found = sampler.generate(policy, prompts, seed=0)
    return found, wanted, accelerator.copied, policy.vocab_size


@pytest.mark.parametrize(("name", "family", "options"), [*defined(), *OPTIONS])
def test_logits_stay_on_the_device(name, family, options):
    found, wanted, copied, size = written(name, family, options)
    assert torch.equal(found.ids, wanted.ids)
    assert found.token_forwards == wanted.token_forwards
    torch.testing.assert_close(found.trajectory.events.log_prob, wanted.trajectory.events.log_prob)
    assert 0 < copied < found.token_forwards * size * 4 / 10


@pytest.mark.parametrize(("name", "family"), GRAMMAR)
def test_a_grammar_walks_on_the_cpu(name, family):
    found, wanted, _, _ = written(name, family, {"grammar": True})
    assert torch.equal(found.ids, wanted.ids)


def test_what_a_rule_of_ones_own_reads_is_on_the_cpu():
    class Own(registry.get("sampler", "threshold")):
        name = "own"

        def choose(self, context):
            peak = context.logits.log_softmax(dim=-1).amax(dim=-1)
            return torch.where(context.is_open, peak, -torch.inf) > -2.0

    policy = random_policy("masked")
    prompts = prompts_of(policy, range(3))
    wanted = Own(temperature=1.0).generate(policy, prompts, seed=0)
    with on_accelerator(policy.model):
        found = Own(temperature=1.0).generate(policy, prompts, seed=0)
    assert torch.equal(found.ids, wanted.ids)
