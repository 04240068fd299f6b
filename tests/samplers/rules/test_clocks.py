"""Ancestral and first-hitting sampling: the laws of when and where, and forwards that are spared at no cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import samplers.loop.sampling as chunks
from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.testing.policies import prompts_of
from samplers.loop.readers import BlockByBlock, WholeCanvas

# 99.9 % quantiles of chi-square.
QUANTILE = {4: 18.5, 5: 20.5}


def draw(policy, name, rows=(0, 1, 2), *, temperature=1.0, seed=5, **options):
    rule = registry.get("sampler", name)(temperature=temperature, **options)
    return rule.generate(policy, prompts_of(policy, tuple(rows)), seed=seed)


def certain(policy, length):
    """A canvas of so many columns, and token 40 everywhere; no model is asked."""

    class Certain(type(policy)):
        def logits(self, prompts, canvas, *, columns=None, **rest):
            found = torch.zeros(*columns.shape, self.vocab_size).masked_fill(self._banned, -torch.inf)
            found[..., 40] = 50.0
            return found

    return Certain(policy.model, policy.tokenizer, replace(policy.facts, canvas_length=length, line_width=None))


def chi_square(counts, probabilities):
    expected = probabilities * counts.sum()
    return ((counts - expected) ** 2 / expected).sum().item()


@pytest.mark.parametrize("least_time", [0.0, 1e-3, 0.5])
def test_ancestral_steps_write_the_share_that_time_says(tiny_policies, least_time):
    """A mask falls in step i with probability t_i - t_(i+1), and in the last one with what is left."""
    policy = certain(tiny_policies["masked"], 6)
    out = draw(policy, "ancestral", range(700), num_steps=5, least_time=least_time)
    time = torch.linspace(1, least_time, 6).double()
    shares = (time[:-1] - time[1:]).clone()
    shares[-1] = time[-2]
    counts = torch.bincount(out.trajectory.commit_step.flatten(), minlength=5).double()
    assert counts.sum() == 4200 and chi_square(counts, shares) < QUANTILE[4]


@pytest.mark.parametrize("name", ["ancestral", "first_hitting"])
def test_columns_are_independent_of_the_step_they_fall_in(tiny_policies, name):
    """Every column is as likely as any other to be the first, and to be the last, of its row."""
    policy = certain(tiny_policies["masked"], 6)
    steps = draw(policy, name, range(700), num_steps=60 if name == "ancestral" else None).trajectory.commit_step
    for extreme in (steps.amin(dim=1), steps.amax(dim=1)):
        hits = (steps == extreme[:, None]).double()
        counts = hits[hits.sum(dim=1) == 1].sum(dim=0)
        assert counts.sum() > 500 and chi_square(counts, torch.full((6,), 1 / 6).double()) < QUANTILE[5]


@pytest.mark.parametrize(("family", "options"), [("masked", {}), ("masked", {"block_length": 10}), ("block", {})])
@pytest.mark.parametrize(("cache", "grammar"), [("exact", False), ("none", False), ("exact", True)])
def test_rows_that_wait_are_not_asked_and_lose_nothing(tiny_policies, monkeypatch, family, options, cache, grammar):
    """Against the same rule asked in all rows when one writes: tokens, states, log-probabilities; fewer forwards."""
    policy = tiny_policies[family]
    options = {"num_steps": 100, "cache": cache, "grammar": grammar, **options}
    spared = draw(policy, "ancestral", range(5), **options)
    for reader in (WholeCanvas, BlockByBlock):
        monkeypatch.setattr(reader, "begins", lambda self, columns: True)
    asked = draw(policy, "ancestral", range(5), **options)
    assert torch.equal(spared.ids, asked.ids)
    assert torch.equal(spared.trajectory.canvases, asked.trajectory.canvases)
    torch.testing.assert_close(spared.trajectory.log_probs, asked.trajectory.log_probs, atol=2e-5, rtol=1e-4)
    assert spared.token_forwards < 0.7 * asked.token_forwards and spared.nfe == asked.nfe


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_rows_may_idle_beside_stale_keys(tiny_policies, cache):
    """A row's text is its own, whichever row is the first to write in a block; that alone all rows are fed for."""
    policy, options = tiny_policies["masked"], {"num_steps": 60, "cache": cache, "block_length": 12}
    for grammar in (False, True):
        together = draw(policy, "ancestral", range(4), grammar=grammar, **options)
        rows = [draw(policy, "ancestral", (row,), grammar=grammar, **options) for row in range(4)]
        assert all(torch.equal(text, alone.ids[0]) for text, alone in zip(together.ids, rows, strict=True))
        assert together.token_forwards < 1.5 * sum(alone.token_forwards for alone in rows)


def test_a_rule_that_may_idle_sees_no_distribution(tiny_policies):
    class Looks(registry.get("sampler", "ancestral")):
        name = "looks"

        def choose(self, context):
            return context.log_odds > 0

    class TakesBack(registry.get("sampler", "remdm")):
        name, may_idle = "takes_back", True

    with pytest.raises(ConfigError, match="`choose` runs before the model"):
        Looks().generate(tiny_policies["masked"], prompts_of(tiny_policies["masked"], (0,)), seed=0)
    with pytest.raises(ConfigError, match="TakesBack has may_idle=True and `remask`"):
        TakesBack()


def test_a_row_is_asked_once_for_every_canvas_it_had(tiny_policies, monkeypatch):
    """Counted by a hook on the model: fed are the canvases that changed, equal ones of equal prompts once."""
    monkeypatch.setattr(chunks, "TOKENS_ON_CPU", 10_000)
    policy, fed = tiny_policies["masked"], []
    handle = policy.model.register_forward_hook(
        lambda module, args, kwargs, output: fed.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    try:
        out = draw(policy, "ancestral", range(5), num_steps=300)
    finally:
        handle.remove()
    states = out.trajectory.canvases
    has_changed = (states[:, 1:] != states[:, :-1]).any(dim=2)
    prompts = prompts_of(policy, range(5)).ids.tolist()
    read = {(step, str(prompts[row]), str(states[row, step].tolist())) for row, step in has_changed.nonzero().tolist()}
    assert sum(rows for rows, _ in fed) == len(read) <= int(has_changed.sum())
    # The record counts what each row asked for, so that it does not depend on what else stood in the batch.
    assert out.nfe == len(fed) and out.token_forwards == int(has_changed.sum()) * fed[0][1]
    alone = draw(policy, "ancestral", (2,), num_steps=300)
    assert alone.nfe <= 36


def test_ancestral_in_one_step_writes_everything(tiny_policies):
    assert draw(tiny_policies["masked"], "ancestral", num_steps=1).nfe == 1


@pytest.mark.parametrize("time", [1.0, -0.1])
def test_a_time_that_leaves_no_steps_is_refused(time):
    with pytest.raises(ConfigError, match=f"least_time={time}"):
        registry.get("sampler", "ancestral")(least_time=time)


@pytest.mark.parametrize(("family", "block"), [("masked", 36), ("masked", 10), ("block", 10)])
@pytest.mark.parametrize("name", ["first_hitting", "low_confidence"])
def test_as_many_steps_as_columns_write_one_token_each_in_blocks_too(tiny_policies, name, family, block):
    """In the last block, which is shorter, as well; block after block."""
    policy = tiny_policies[family]
    out = draw(policy, name, range(5), block_length=block, num_steps=None)
    for row, steps in enumerate(out.trajectory.commit_step):
        drawn = steps[steps >= 0]
        assert drawn.unique().numel() == drawn.numel() >= 1
        assert ((steps < 0) | (torch.arange(36) // block == steps.div(block, rounding_mode="floor"))).all(), row
