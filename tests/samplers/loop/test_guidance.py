"""Classifier-free guidance: two forwards, one law; and the record says that it is not the policy's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.testing import SAMPLER_PROPERTIES
from dllm_rl.testing.policies import prompts_of
from dllm_rl.testing.sampler import SamplerCase


def draw(policy, name="low_confidence", rows=(0, 1, 2), *, temperature=0.0, **options):
    rule = registry.get("sampler", name)(temperature=temperature, **options)
    return rule.generate(policy, prompts_of(policy, tuple(rows)), seed=5)


def guided(policy, prompts, canvas, strength):
    """The formula, by hand; padding is no prompt."""
    blind = prompts.ids.clone()
    blind[prompts.mask] = policy.mask_id
    known, unknown = policy.logits(prompts, canvas), policy.logits(replace(prompts, ids=blind), canvas)
    found = unknown + (strength + 1) * (known - unknown)
    return torch.where(policy._banned, -torch.inf, found)


@pytest.mark.parametrize("strength", [0.5, 3.0])
def test_greedy_decoding_is_the_plain_loop_over_guided_laws(tiny_policies, strength):
    policy = tiny_policies["masked"]
    prompts, canvas, total = prompts_of(policy, (0, 1, 2)), policy.empty_canvas(3), torch.zeros(3, 36)
    row = torch.arange(3)
    for _ in range(36):
        laws = guided(policy, prompts, canvas, strength).double().log_softmax(-1)
        best, token = laws.max(-1)
        chosen = best.masked_fill(canvas != policy.mask_id, -torch.inf).argmax(1)
        canvas[row, chosen] = token[row, chosen]
        total[row, chosen] = best[row, chosen].float()
    out = draw(policy, num_steps=36, guidance=strength)
    assert torch.equal(out.ids, policy.canvas.close(canvas))
    drawn = out.trajectory.commit_step >= 0
    torch.testing.assert_close(out.trajectory.log_probs[drawn], total[drawn], atol=1e-4, rtol=1e-4)
    assert not torch.equal(out.ids, draw(policy, num_steps=36).ids), "guidance must matter here"


def test_no_guidance_is_no_guidance(tiny_policies):
    """No second forward, the same bits; and no sampler has it by default."""
    policy = tiny_policies["masked"]
    plain, none = draw(policy, temperature=1.0), draw(policy, temperature=1.0, guidance=0.0)
    assert torch.equal(plain.trajectory.log_probs, none.trajectory.log_probs) and plain.nfe == none.nfe == 32
    assert {cls().guidance for _, cls in registry.items("sampler") if hasattr(cls(), "guidance")} == {0.0}


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_strengths_that_mean_nothing_are_refused(strength):
    with pytest.raises(ConfigError, match="guidance="):
        registry.get("sampler", "threshold")(guidance=strength)


@pytest.mark.parametrize(
    ("family", "name", "options"),
    [
        ("masked", "threshold", {"threshold": 0.05}),
        ("masked", "ancestral", {"num_steps": 12}),
        ("masked", "rcr", {"num_steps": 12}),
        ("masked", "threshold", {"threshold": 0.05, "cache": "dual", "block_length": 10}),
        ("block", "threshold", {"threshold": 0.05}),
    ],
)
def test_guided_samplers_keep_the_promises(tiny_policies, family, name, options):
    """Both forwards of a step are counted, as a hook on the model sees them; with caches, blocks and the grammar."""
    case = SamplerCase(
        sampler_class=registry.get("sampler", name),
        policy=tiny_policies[family],
        options={"guidance": 1.0, **options},
    )
    for label in ("complete", "rows_are_independent", "counts_are_honest"):
        SAMPLER_PROPERTIES[label](case)
    if name == "threshold" and family == "masked":
        SAMPLER_PROPERTIES["grammar_holds"](case)
    assert case.draw().trajectory.is_approximate


@pytest.mark.parametrize("family", ["masked", "block"])
def test_a_guided_step_is_two_forwards(tiny_policies, family):
    policy = tiny_policies[family]
    guided_out, plain = (draw(policy, rows=(0,), num_steps=8, guidance=strength) for strength in (2.0, 0.0))
    assert guided_out.trajectory.num_steps == plain.trajectory.num_steps == 8
    assert (guided_out.nfe, guided_out.token_forwards) == (2 * plain.nfe, 2 * plain.token_forwards)
