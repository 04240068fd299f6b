"""Block decoding: keys and values of finished blocks change nothing but the number of positions that are fed."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

import samplers.loop.sampling as chunks
from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.policies.block import BlockPolicy
from dllm_rl.records.types import Prompts, Rollouts
from dllm_rl.testing._sampler_rows import ending
from dllm_rl.testing.policies import prompts_of
from samplers.loop.context import Watcher
from tests.tiny_policies import PROMPTS

RULES = [
    ("low_confidence", {"num_steps": 36}),
    ("low_confidence", {"num_steps": 11, "block_length": 5}),
    ("threshold", {"threshold": 0.5}),
    ("entropy_bound", {"gamma": 0.5}),
    ("klass", {}),
    ("rcr", {"num_steps": 20}),
    ("threshold", {"threshold": 0.5, "grammar": True}),
    ("low_confidence", {"num_steps": 9, "block_length": 5, "grammar": True}),
]


def draw(policy, name, *, rows=range(5), temperature=1.0, **options):
    return registry.get("sampler", name)(temperature=temperature, **options).generate(
        policy, prompts_of(policy, tuple(rows)), seed=5
    )


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("name", "options"), RULES)
def test_the_cache_changes_no_token_and_no_log_probability(tiny_policies, monkeypatch, name, options, temperature):
    monkeypatch.setattr(chunks, "TOKENS_ON_CPU", 400)
    policy = tiny_policies["block"]
    fast = draw(policy, name, temperature=temperature, **options)
    plain = draw(policy, name, temperature=temperature, cache="none", **options)
    assert torch.equal(fast.ids, plain.ids)
    assert torch.equal(fast.trajectory.commit_step, plain.trajectory.commit_step)
    assert torch.equal(fast.trajectory.canvases, plain.trajectory.canvases)
    torch.testing.assert_close(fast.trajectory.log_probs, plain.trajectory.log_probs, atol=2e-5, rtol=1e-4)
    assert fast.nfe == plain.nfe
    assert fast.token_forwards < plain.token_forwards / 2


def test_greedy_is_the_plain_loop_block_by_block(tiny_policies):
    """One token a step: the most confident masked column of the first block that has any."""
    policy = tiny_policies["block"]
    prompts, canvas = policy.prompts(PROMPTS, range(3)), policy.empty_canvas(3)
    for step in range(36):
        block = torch.arange(36) // 10 == (step // 10)
        confidence, best = policy.logits(prompts, canvas).double().softmax(-1).max(-1)
        chosen = confidence.masked_fill((canvas != policy.mask_id) | ~block, -1).argmax(1)
        canvas[torch.arange(3), chosen] = best[torch.arange(3), chosen]
    out = draw(policy, "low_confidence", rows=range(3), temperature=0.0, num_steps=40)
    assert torch.equal(out.ids, policy.canvas.close(canvas))


def test_a_finished_block_is_fed_once_more_and_never_again(tiny_policies):
    """Fed are the prompt once, each block in each of its steps, and each finished block once beside the next one."""
    policy = tiny_policies["block"]
    for row in range(3):
        out = draw(policy, "low_confidence", rows=(row,), num_steps=12)
        step = out.trajectory.commit_step[0]
        sizes = [10, 10, 10, 6]
        blocks = [block[block >= 0].unique().numel() for block in step.split(10)]
        blocks = [count for count in blocks if count]
        prompt = len(policy.tokenizer.encode(PROMPTS[row], add_special_tokens=False))
        in_steps = sum(count * size for count, size in zip(blocks, sizes, strict=False))
        assert out.nfe == sum(blocks)
        assert out.token_forwards == prompt + in_steps + sum(sizes[: len(blocks) - 1])


def test_rows_leave_with_eos(tiny_policies):
    """A row that ended in an early block is not fed in later ones."""
    policy = tiny_policies["block"]
    prompts = prompts_of(policy, tuple(range(12)))
    out = registry.get("sampler", "threshold")(threshold=0.5).generate(policy, prompts, seed=5)
    alone = [draw(policy, "threshold", rows=(row,), threshold=0.5) for row in range(12)]
    ends = {int((part.trajectory.commit_step[0] >= 0).nonzero().max()) // 10 for part in alone}
    assert len(ends) > 1, "the rows must end in different blocks"
    assert all(torch.equal(part.ids[0], ids) for part, ids in zip(alone, out.ids, strict=True))
    pads = 12 * int(prompts.mask.sum(dim=1).max()) - int(prompts.mask.sum())
    assert out.token_forwards <= sum(part.token_forwards for part in alone) + pads + 12 * 36


def test_blocks_of_another_length_are_refused(tiny_policies):
    with pytest.raises(ConfigError, match=r"block_length=4 does not divide.*10"):
        draw(tiny_policies["block"], "threshold", block_length=4)


@pytest.mark.parametrize("size", [1, 7, 36])
def test_any_block_size_of_the_policy(tiny_policies, size):
    base = tiny_policies["block"]
    policy = BlockPolicy(base.model, base.tokenizer, replace(base.facts, block_size=size))
    fast, plain = (draw(policy, "threshold", cache=cache) for cache in ("exact", "none"))
    assert torch.equal(fast.ids, plain.ids)
    assert fast.token_forwards <= plain.token_forwards


@pytest.mark.parametrize("name", ["low_confidence", "threshold"])
def test_under_the_grammar_a_replay_gives_the_recorded_log_probabilities(tiny_policies, name):
    policy = tiny_policies["block"]
    rows = tuple(range(5))
    prompts = prompts_of(policy, rows)
    out = draw(policy, name, grammar=True)
    rollouts = Rollouts(
        prompt_ids=prompts.ids,
        prompt_mask=prompts.mask,
        completion_ids=out.as_drawn,
        completion_mask=out.mask,
        rewards=torch.zeros(5),
        group_ids=torch.zeros(5, dtype=torch.long),
        valid=torch.ones(5, dtype=torch.bool),
        trajectory=out.trajectory,
        totals=Rollouts.count_totals(torch.ones(5, dtype=torch.bool), torch.zeros(5), out.mask),
    )
    with torch.no_grad():
        views = policy.process.replay(rollouts, torch.Generator().manual_seed(0))
        replayed = policy.view_log_probs(rollouts, views).sum(0)
    where = out.mask & (out.trajectory.commit_step >= 0)
    torch.testing.assert_close(replayed[where], out.trajectory.log_probs[where], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("offset", [0, 3])
def test_the_next_token_comes_first_where_a_block_begins_behind_a_whole_one(tiny_policies, offset):
    """As in Fast-dLLM v2. A block that the prompt has begun has no such token."""
    shared = tiny_policies["block"]
    facts = replace(shared.facts, prompt_blocks="from_prompt", is_shifted=True)
    policy = BlockPolicy(shared.model, shared.tokenizer, facts)
    prompts = policy.prompts(PROMPTS[:1], [0])
    length = prompts.ids.shape[1] // 10 * 10 - 10 + offset
    prompts = replace(prompts, ids=prompts.ids[:, -length:], mask=prompts.mask[:, -length:])
    options = {"temperature": 0.0, "threshold": 0.01}
    plain, first = (
        registry.build("sampler", "threshold", {**options, **more}).generate(policy, prompts, seed=5)
        for more in ({}, {"next_token_first": True})
    )
    starts = [column for column in range(36) if (offset + column) % 10 == 0]
    for start in starts:
        steps = first.trajectory.commit_step[0, start : start + 10]
        assert steps[0] < steps[1:].min(), "the block's first column was not written alone and first"
    assert first.trajectory.num_steps == plain.trajectory.num_steps + len(starts)


@pytest.mark.parametrize("name", ["soft_threshold", "epsilon_greedy", "rpd"])
def test_rules_with_an_order_of_their_own_refuse_it(name):
    with pytest.raises(ConfigError, match=f"and '{name}' has one of its own"):
        registry.build("sampler", name, {"next_token_first": True})


@pytest.mark.parametrize(
    ("name", "options"),
    [("ancestral", {}), ("margin", {"schedule": "dream"}), ("low_confidence", {"num_steps": 36, "cache": "none"})],
)
def test_blocks_of_a_divisor_begin_at_the_prompt_too(tiny_policies, name, options):
    """Blocks of 10 counted from the prompt, written 5 columns at a time: in order, and each column in one of them."""
    base = tiny_policies["block"]
    policy = BlockPolicy(base.model, base.tokenizer, replace(base.facts, prompt_blocks="from_prompt"))
    ids = torch.randint(5, 250, (1, 37), generator=torch.Generator().manual_seed(0))
    prompts = Prompts(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool), row_ids=torch.tensor([0]))
    seen = []

    class Edges(Watcher):
        def block_done(self, canvas, start, end):
            seen.append((start, end))
            return super().block_done(canvas, start, end)

    sampler = registry.get("sampler", name)(block_length=5, **options)
    with ending(policy, 0.0):
        out = sampler.generate(policy, prompts, seed=0, watcher=Edges())
    assert seen == [(0, 3), (3, 8), (8, 13), (13, 18), (18, 23), (23, 28), (28, 33), (33, 36)]
    steps = [out.trajectory.commit_step[0, start:end] for start, end in seen]
    assert all(int(first.max()) < int(second.min()) for first, second in itertools.pairwise(steps))
