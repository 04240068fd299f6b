"""Blocks as published checkpoints have them: a prompt that is read block by block, its tail in the first block of the
canvas, shifted logits.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.policies.block import BlockPolicy
from dllm_rl.policies.feed import Feed
from dllm_rl.records.types import Prompts
from dllm_rl.training import warmstart
from dllm_rl.training.update import generator
from dllm_rl.training.warmstart import Demonstration
from samplers.loop.context import Watcher
from tests.dllm_rl.policies import checkpoints
from tests.dllm_rl.policies.test_block import CLOSE, canvases, sampled, with_facts
from tests.tiny_policies import PLANS, PROMPTS, tokenizer

SIZE, LENGTH = 4, 12
READINGS = [
    {"prompt_blocks": "from_prompt"},
    {"prompt_blocks": "from_prompt", "is_shifted": True},
    {"prompt_blocks": "from_canvas"},
    {"is_prompt_causal": True, "is_shifted": True},
]


@pytest.mark.parametrize("facts", READINGS)
@pytest.mark.parametrize("size", [1, 5, 10])
def test_one_doubled_pass_and_the_cache_equal_block_by_block(tiny_policies, size, facts):
    """Rows with prompts of other lengths in one doubled pass; then each row and block alone, by a plain forward."""
    policy = with_facts(tiny_policies["block"], block_size=size, **facts)
    prompts, (clean, noisy) = policy.prompts(PROMPTS, range(3)), canvases(policy)
    assert len(policy.alignment(prompts).unique()) > 1 or size == 1 or facts.get("prompt_blocks") != "from_prompt"
    every = torch.arange(36)
    doubled = policy.score_blocks(Feed.of(prompts, noisy), clean, every)
    some = torch.tensor([9, 10, 17, 20])
    torch.testing.assert_close(policy.score_blocks(Feed.of(prompts, noisy), clean, some), doubled[:, some], **CLOSE)
    for row, text in enumerate(PROMPTS):
        alone = policy.prompts([text], [row])
        cache = policy.read_prompts(alone)
        for start, end in policy.blocks(alone.mask).edges(36):
            columns = every[start:end]
            canvas = torch.where(every < start, clean[row], policy.mask_id)[None]
            canvas[:, columns] = noisy[row, columns]
            plain = policy.logits(alone, canvas, columns=columns)
            torch.testing.assert_close(doubled[row : row + 1, columns], plain, **CLOSE)
            for _ in range(2):
                kept = policy.logits(alone, canvas, columns=columns, cache=cache)
                torch.testing.assert_close(kept, plain, **CLOSE)


def stock_policy(**facts) -> BlockPolicy:
    """A stock Qwen3, as SDAR is one, in float32."""
    words = tokenizer()
    model = checkpoints.stock("qwen3", vocab_size=len(words)).float()
    policy = registry.get("policy", "block")
    known = {"family": "block", "block_size": SIZE, "canvas_length": LENGTH, "max_prompt": 64}
    return policy(model, words, policy.facts_class.from_dict(known | facts))


def written_plainly(policy: BlockPolicy, prompt: list[int]) -> list[int]:
    """As SDAR's generate does: blocks from the sequence's start, one token a step where the probability is highest."""
    length = -(-(len(prompt) + LENGTH) // SIZE) * SIZE
    tokens = torch.full((1, length), policy.mask_id)
    tokens[0, : len(prompt)] = torch.tensor(prompt)
    block = torch.arange(length) // SIZE
    mask = torch.where(block[None, :] <= block[:, None], 0.0, -torch.inf)[None, None]
    for current in range(len(prompt) // SIZE, length // SIZE):
        while (is_open := (tokens[0] == policy.mask_id) & (block == current)).any():
            with torch.no_grad():
                logits = policy.model(
                    input_ids=tokens, attention_mask=mask, position_ids=torch.arange(length)[None]
                ).logits
            if policy.facts.is_shifted:
                logits = logits.roll(1, dims=1)
            logits = logits[0].masked_fill(policy._banned, -torch.inf)
            best, token = logits.log_softmax(dim=-1).max(dim=-1)
            place = best.masked_fill(~is_open, -torch.inf).argmax()
            tokens[0, place] = token[place]
    return tokens[0, len(prompt) : len(prompt) + LENGTH].tolist()


@pytest.mark.parametrize("is_shifted", [False, True])
def test_tokens_are_those_of_the_published_loop(is_shifted):
    """Prompts shorter than a block, of one, of several, and of a remainder, in one batch of ours.

    The published loop fills its last block up, while a canvas ends within it; so that block is not compared.
    """
    policy = stock_policy(prompt_blocks="from_prompt", is_shifted=is_shifted)
    ids = torch.randint(5, 250, (40,), generator=torch.Generator().manual_seed(3)).tolist()
    encoded = [ids[:count] for count in (3, 4, 8, 17, 22)]
    prompts = Prompts.left_padded(encoded, row_ids=range(5), pad_id=policy.canvas.pad_id)
    rule = registry.get("sampler", "low_confidence")(temperature=0.0, num_steps=None)
    out = rule.generate(policy, prompts, seed=0)
    drawn = out.trajectory.states(out.trajectory.events.end[None])[0]
    for row, prompt in enumerate(encoded):
        wanted = written_plainly(policy, prompt)
        whole = (len(prompt) + LENGTH) // SIZE * SIZE - len(prompt)
        end = min(whole, wanted.index(policy.canvas.eos_id) + 1 if policy.canvas.eos_id in wanted else LENGTH)
        assert drawn[row, :end].tolist() == wanted[:end]


def test_replays_give_what_was_drawn_in_rows_of_any_alignment(tiny_policies):
    for facts in READINGS[:2]:
        policy = with_facts(tiny_policies["block"], **facts)
        rollouts = sampled(policy, num_steps=36)
        views = policy.process.replay(rollouts, torch.Generator())
        with torch.no_grad():
            terms = policy.view_log_probs(rollouts, views).sum(dim=0)
        where = rollouts.completion_mask
        torch.testing.assert_close(terms[where], rollouts.trajectory.log_probs[where], atol=1e-4, rtol=1e-4)


def test_every_column_has_the_same_weight_in_the_elbo(tiny_policies):
    policy = with_facts(tiny_policies["block"], prompt_blocks="from_prompt")
    rollouts = sampled(policy, num_steps=36)
    parts = policy.process.parts(rollouts)
    assert torch.equal(policy.process.joined(rollouts, parts[None])[0], policy.process.units(rollouts))
    views = policy.process.elbo(rollouts, torch.Generator().manual_seed(0), num_draws=4000)
    weight = views.weight.sum(dim=0)[rollouts.completion_mask]
    torch.testing.assert_close(weight, torch.ones_like(weight), atol=0.1, rtol=0)


def test_the_warm_start_hides_something_in_every_block_up_to_eos(tiny_policies, monkeypatch):
    policy = with_facts(tiny_policies["block"], prompt_blocks="from_prompt", block_size=10)
    shown = [Demonstration(prompt=prompt, plan=plan) for prompt, plan in zip(PROMPTS, PLANS, strict=True)]
    batch = warmstart.collate(policy, *warmstart.encode(policy, shown))
    masked = []
    score = policy.score_blocks
    monkeypatch.setattr(
        policy,
        "score_blocks",
        lambda feed, *a, **k: masked.append(feed.canvas == policy.mask_id) or score(feed, *a, **k),
    )
    stream = generator(0, "test")
    for _ in range(6):
        policy.process.warm_start_loss(policy, batch, stream)
    number = policy.blocks(batch.prompts.mask).number(torch.arange(36))
    last = number.gather(1, (batch.canvas == policy.canvas.eos_id).long().argmax(dim=1, keepdim=True))
    for hidden in masked:
        for row in range(3):
            assert set(number[row, hidden[row]].tolist()) == set(range(int(last[row]) + 1))


def test_a_watched_batch_of_other_alignments_is_refused(tiny_policies):
    policy = with_facts(tiny_policies["block"], prompt_blocks="from_prompt")
    prompts = policy.prompts(PROMPTS, range(3))
    with pytest.raises(ConfigError, match="differ modulo the block size of 10"):
        registry.get("sampler", "low_confidence")().generate(policy, prompts, seed=0, watcher=Watcher())


def test_facts_of_the_prompt_are_kept(tiny_policies):
    facts = replace(tiny_policies["block"].facts, prompt_blocks="from_prompt")
    assert type(facts).from_dict(facts.to_dict()) == facts
