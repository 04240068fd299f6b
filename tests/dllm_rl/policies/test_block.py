"""The block family: who reads whom, one doubled pass for all blocks, exact keys and values, and its ELBO."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.policies.block import BlockPolicy
from dllm_rl.policies.feed import Feed
from dllm_rl.records.types import Rollouts
from dllm_rl.training import warmstart
from dllm_rl.training.update import generator
from dllm_rl.training.warmstart import Batch, Demonstration, WarmStartConfig, warm_start
from tests.tiny_policies import PLANS, PROMPTS, make_tiny_policy

CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def with_facts(policy, **changes):
    return BlockPolicy(policy.model, policy.tokenizer, replace(policy.facts, **changes))


def canvases(policy, seed=0):
    """Random letters, and the same with random masks."""
    draws = torch.Generator().manual_seed(seed)
    clean = torch.randint(5, 300, (3, 36), generator=draws)
    return clean, clean.masked_fill(torch.rand(3, 36, generator=draws) < 0.6, policy.mask_id)


def test_a_column_reads_its_block_and_those_before_it(tiny_policies):
    policy = tiny_policies["block"]
    prompts, (clean, _) = policy.prompts(PROMPTS, range(3)), canvases(policy)
    changed = clean.clone()
    changed[:, 15] = 7
    before, after = policy.logits(prompts, clean), policy.logits(prompts, changed)
    torch.testing.assert_close(after[:, :10], before[:, :10], **CLOSE)
    moved = (after - before).nan_to_num(0).abs().amax(-1)
    assert (moved[:, 10:15] > 1e-3).any(dim=1).all(), "columns before it in its block of 10"
    assert (moved[:, 20:] > 1e-3).any(dim=1).all(), "later blocks"


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_prompt_reads_no_canvas_and_is_causal_where_the_facts_say_so(tiny_policies, is_causal):
    policy = with_facts(tiny_policies["block"], is_prompt_causal=is_causal)
    mask = policy.reading.attention.mask(torch.ones(1, 7, dtype=torch.bool), 4)[0, 0]
    assert not mask[:4, 4:].any()
    assert mask[4:, :4].all()
    assert torch.equal(mask[:4, :4], torch.ones(4, 4).tril().bool() if is_causal else torch.ones(4, 4).bool())


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("size", [1, 5, 10, 36])
def test_one_doubled_pass_and_the_cache_equal_block_by_block(tiny_policies, size, is_causal):
    """Each block alone, its predecessors clean and its successors hidden, through a plain forward over the canvas."""
    policy = with_facts(tiny_policies["block"], block_size=size, is_prompt_causal=is_causal)
    prompts, (clean, noisy) = policy.prompts(PROMPTS, range(3)), canvases(policy)
    every, feed = torch.arange(36), Feed.of(prompts, noisy)
    doubled = policy.score_blocks(feed, clean, every)
    some = torch.tensor([9, 10, 17, 20])
    torch.testing.assert_close(policy.score_blocks(feed, clean, some), doubled[:, some], **CLOSE)
    cache = policy.read_prompts(prompts)
    for start in range(0, 36, size):
        columns = every[start : start + size]
        canvas = torch.where(every < start, clean, policy.mask_id)
        canvas[:, columns] = noisy[:, columns]
        plain = policy.logits(prompts, canvas, columns=columns)
        torch.testing.assert_close(doubled[:, columns], plain, **CLOSE)
        for _ in range(2):
            torch.testing.assert_close(policy.logits(prompts, canvas, columns=columns, cache=cache), plain, **CLOSE)
        assert cache.length == prompts.ids.shape[1] + start


def test_later_and_noisy_blocks_have_no_influence_on_a_score(tiny_policies):
    """A block's terms depend on the clean blocks before it and on its own noise; not on how others are hidden."""
    policy = tiny_policies["block"]
    prompts, (clean, noisy) = policy.prompts(PROMPTS, range(3)), canvases(policy)
    columns = torch.arange(10, 20)
    other = torch.full_like(noisy, policy.mask_id)
    other[:, columns] = noisy[:, columns]
    changed = clean.clone()
    changed[:, 10:] = 9
    first = policy.score_blocks(Feed.of(prompts, noisy), clean, torch.arange(36))[:, columns]
    second = policy.score_blocks(Feed.of(prompts, other), changed, columns)
    torch.testing.assert_close(first, second, **CLOSE)


@pytest.mark.parametrize("changes", [{"block_size": 0}, {"prompt_blocks": "from_prompt", "is_prompt_causal": True}])
def test_impossible_facts_are_refused(tiny_policies, changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        with_facts(tiny_policies["block"], **changes)


def sampled(policy, **options) -> Rollouts:
    prompts = policy.prompts(PROMPTS, range(3))
    out = registry.get("sampler", "low_confidence")(**options).generate(policy, prompts, seed=0)
    return Rollouts(
        prompt_ids=prompts.ids,
        prompt_mask=prompts.mask,
        completion_ids=out.as_drawn,
        completion_mask=out.mask,
        rewards=torch.zeros(3),
        group_ids=torch.zeros(3, dtype=torch.long),
        valid=torch.ones(3, dtype=torch.bool),
        trajectory=out.trajectory,
        totals=Rollouts.count_totals(torch.ones(3, dtype=torch.bool), torch.zeros(3), out.mask),
    )


def test_with_blocks_of_one_column_elbo_and_one_step_are_the_exact_likelihood(tiny_policies):
    """Then the family is autoregressive: any estimate is the sum of the log-probabilities of the draws."""
    policy = with_facts(tiny_policies["block"], block_size=1)
    rollouts = sampled(policy, num_steps=36)
    assert rollouts.trajectory is not None
    wanted = torch.where(rollouts.completion_mask, rollouts.trajectory.log_probs, 0.0).sum(1)
    for views in (
        policy.process.elbo(rollouts, torch.Generator().manual_seed(1), num_draws=1),
        policy.process.one_step(rollouts, torch.Generator().manual_seed(1)),
    ):
        with torch.no_grad():
            terms = policy.view_log_probs(rollouts, views)
        torch.testing.assert_close((views.weight * terms).sum((0, 2)), wanted, atol=1e-3, rtol=1e-4)


def test_a_view_across_blocks_reads_the_earlier_ones_clean(tiny_policies):
    """TraceRL merges steps of neighbouring blocks; the later block's terms are those of its own first step."""
    policy = tiny_policies["block"]
    rollouts = sampled(policy, num_steps=4)
    objective = registry.get("objective", "tracerl")(shrink=4)
    views = objective.views(rollouts, policy.process, torch.Generator())
    assert views.num_views == 1
    with torch.no_grad():
        merged = policy.view_log_probs(rollouts, views)[0]
    assert rollouts.trajectory is not None
    where = rollouts.completion_mask
    assert where[:, 10:].any(), "some row must reach its second block"
    torch.testing.assert_close(merged[where], rollouts.trajectory.log_probs[where], atol=1e-4, rtol=1e-4)


SHOWN = [Demonstration(prompt=prompt, plan=plan) for prompt, plan in zip(PROMPTS, PLANS, strict=True)] * 4


def test_the_warm_start_learns_nothing_behind_the_block_of_eos(tiny_policies, monkeypatch):
    policy = with_facts(tiny_policies["block"], block_sizes=(4, 10))
    prompts, canvas = warmstart.encode(policy, SHOWN[:3])
    batch: Batch = warmstart.collate(policy, prompts, canvas)
    asked = []
    score = policy.score_blocks

    def spy(feed, *args, block_size, **more):
        asked.append((block_size, feed.canvas == policy.mask_id))
        return score(feed, *args, block_size=block_size, **more)

    monkeypatch.setattr(policy, "score_blocks", spy)
    stream = generator(0, "test")
    losses = [float(policy.process.warm_start_loss(policy, batch, stream).detach()) for _ in range(12)]
    assert all(loss > 0 for loss in losses)
    assert {size for size, _ in asked} == {4, 10}
    eos = (canvas == policy.canvas.eos_id).long().argmax(dim=1)
    for size, hidden in asked:
        last = torch.where(hidden, torch.arange(36), 0).amax(dim=1)
        assert (last // size == eos // size).all(), "every block up to that of EOS hides something, no later one does"


def test_a_warm_start_that_was_cut_off_goes_on_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(warmstart, "STEPS_PER_STATE", 2)
    config = WarmStartConfig(passes=20, batch_size=4, warmup_steps=1, is_mixed_precision=False)

    def stop(step, num_steps, loss):
        if step == 3:
            raise KeyboardInterrupt

    straight, broken = make_tiny_policy("block"), make_tiny_policy("block")
    warm_start(straight, SHOWN, config)
    with pytest.raises(KeyboardInterrupt):
        warm_start(broken, SHOWN, config, on_step=stop, state_dir=tmp_path / "state")
    resumed, steps = make_tiny_policy("block"), []
    warm_start(resumed, SHOWN, config, on_step=lambda step, *_: steps.append(step), state_dir=tmp_path / "state")
    assert steps == [3, 4, 5]
    assert not (tmp_path / "state").exists()
    for name, weight in straight.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name])
