"""The approximate caches: exact where a block begins, what they say they are inside it, and honest about both."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, Lfm2Config, Lfm2ForCausalLM

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import PolicyFacts
from dllm_rl.policies.masked import MaskedPolicy, StaleCache
from dllm_rl.records.types import Prompts, Rollouts
from dllm_rl.testing import SAMPLER_PROPERTIES
from dllm_rl.testing.policies import prompts_of, random_policy
from dllm_rl.testing.sampler import SamplerCase
from samplers import CACHES
from samplers.hf.generate import TokenIds
from samplers.loop.record import Recorder
from tests.samplers.hf.test_hf import decoder
from tests.samplers.plain.stale import stale_logits, threshold_loop
from tests.samplers.several_a_step import SEVERAL_A_STEP

WHOLE_CANVAS = ("smc", "rpd")  # They read whole canvases, and say so where a cache is asked for.
RULES = [name for name, cls in registry.items("sampler") if "masked" in cls.families and name not in WHOLE_CANVAS]
STALE = ("prefix", "dual")


def draw(policy, name="threshold", rows=range(5), *, temperature=0.0, **options):
    rule = registry.get("sampler", name)(temperature=temperature, **options)
    return rule.generate(policy, prompts_of(policy, tuple(rows)), seed=5)


def stock_policy(model, **facts):
    ids = TokenIds(eos_token_id=2, pad_token_id=0, mask_token_id=3, num_ids=50)
    return MaskedPolicy(model, ids, PolicyFacts(family="masked", canvas_length=14, **facts))


def mixing_policy(seed):
    """Heads that look around: at random weights every token finds itself, and hardly reads what is stale."""
    policy = random_policy("masked", seed=seed)
    with torch.no_grad():
        for block in policy.model.blocks:
            block.qkv.weight[:64] *= 0.1
    return policy


def ends_apart(policy):
    """The policy, certain of an EOS at column 5, 14, 23 or 32, by the row."""

    class Ending(type(policy)):
        def logits(self, prompts, canvas, *, columns=None, **rest):
            found = super().logits(prompts, canvas, columns=columns, **rest)
            asked = torch.arange(canvas.shape[1]).expand(len(canvas), -1) if columns is None else columns
            found[..., self.canvas.eos_id] += 60.0 * (asked == 5 + 9 * (prompts.row_ids % 4)[:, None])
            return found

    return Ending(policy.model, policy.tokenizer, policy.facts)


def two_rows(policy, seed=0):
    """Prompts of 4 and 7 tokens; a canvas with some written columns, and one with more of them inside columns 5-8."""
    generator = torch.Generator().manual_seed(seed)
    ids, length = torch.randint(5, 45, (2, 7), generator=generator), policy.facts.canvas_length
    prompts = Prompts(ids=ids, mask=torch.arange(7) >= torch.tensor([[3], [0]]), row_ids=torch.arange(2))
    canvas = torch.randint(5, 45, (2, length), generator=generator)
    is_masked = torch.arange(length) >= 5
    old = torch.where(is_masked, policy.mask_id, canvas)
    new = torch.where(is_masked & torch.tensor([6, 7]).ne(torch.arange(length)[:, None]).all(1), policy.mask_id, canvas)
    return prompts, old, new


@pytest.mark.parametrize("is_shifted", [False, True])
@pytest.mark.parametrize("make", [lambda: mixing_policy(1), lambda: stock_policy(decoder())])
@pytest.mark.parametrize("cache", STALE)
def test_a_kept_step_is_the_approximation_written_plainly(make, cache, is_shifted):
    """Block of columns 5 to 8; the first forward is exact, the second has old keys and values around what it feeds."""
    policy = make()
    policy.facts = replace(policy.facts, is_shifted=is_shifted)
    prompts, old, new = two_rows(policy)
    length = policy.facts.canvas_length
    kept = StaleCache(start=5, end=9 if cache == "dual" else length)
    columns = torch.tensor([[5, 7, 8], [6, 8, 5]])
    index = columns[..., None].expand(-1, -1, policy.vocab_size)
    with torch.no_grad():
        first = policy.logits(prompts, old, columns=columns, cache=kept)
        assert torch.equal(first, policy.logits(prompts, old, columns=columns))
        column = torch.arange(-7, length)
        is_stale = (column < 5 - is_shifted) | (column >= kept.end)
        expected = stale_logits(policy, prompts, old, new, is_stale).gather(1, index)
        # Twice: the cache is as it was after a step.
        for _ in range(2):
            found = policy.logits(prompts, new, columns=columns, cache=kept)
            torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
        one = policy.logits(
            prompts.rows(torch.tensor([1])), new[1:], columns=columns[1:], cache=kept.rows(torch.tensor([1]))
        )
        torch.testing.assert_close(one, expected[1:], atol=2e-4, rtol=1e-4)
        exact = policy.logits(prompts, new).gather(1, index)
    assert (exact - found)[exact.isfinite()].abs().max() > 0.01, "the canvases must differ enough to tell"


@pytest.mark.parametrize("block_length", [10, 36])
@pytest.mark.parametrize("cache", STALE)
def test_greedy_decoding_is_the_plain_loop_row_by_row(cache, block_length):
    """Rows of several lengths in one batch, which end in different blocks, the last of which is shorter."""
    policy = ends_apart(mixing_policy(3))
    # Ten steps a block at most: none is so short that its last step must write what is left.
    options = {"cache": cache, "block_length": block_length, "num_steps": 40}
    out = draw(policy, threshold=0.5, **options)
    widest, num_blocks, fed_together = prompts_of(policy, range(5)).ids.shape[1], set(), 0
    for row in range(5):
        prompts = prompts_of(policy, (row,))
        canvas, steps = threshold_loop(
            policy, prompts, block_length=block_length, keeps_suffix=cache == "dual", threshold=0.5
        )
        assert torch.equal(out.ids[row], policy.canvas.close(canvas)[0])
        steps = [count for count in steps if count]
        blocks = [(start, min(start + block_length, 36)) for start in range(0, 36, block_length)]
        inside = sum(
            (count - 1) * ((end if cache == "dual" else 36) - start)
            for count, (start, end) in zip(steps, blocks, strict=False)
        )
        alone = draw(policy, rows=(row,), threshold=0.5, **options)
        assert alone.nfe == sum(steps)
        assert alone.token_forwards == len(steps) * (prompts.ids.shape[1] + 36) + inside
        fed_together += len(steps) * (widest + 36) + inside
        num_blocks.add(len(steps))
    # Rows that have ended, or wait for others in a block, are not fed.
    assert out.token_forwards == fed_together
    assert len(num_blocks) == (4 if block_length == 10 else 1)


@pytest.mark.parametrize(
    ("name", "cache"),
    [(name, "dual") for name in RULES] + [(name, "prefix") for name in ("threshold", "rcr", "ancestral")],
)
def test_every_rule_keeps_the_promises_of_a_sampler(tiny_policies, name, cache):
    """The grammar included, for whose later columns laws are stale too; all but the exact replay, which is refused."""
    case = SamplerCase(
        sampler_class=registry.get("sampler", name),
        policy=tiny_policies["masked"],
        options={"cache": cache, "block_length": 10, **SEVERAL_A_STEP.get(name, {})},
    )
    for label in ("complete", "rows_are_independent", "counts_are_honest", "grammar_holds"):
        SAMPLER_PROPERTIES[label](case)
    assert case.draw().trajectory.is_approximate


@pytest.mark.parametrize("name", WHOLE_CANVAS)
@pytest.mark.parametrize("cache", STALE)
def test_rules_of_whole_canvases_refuse_a_cache(name, cache):
    with pytest.raises(ConfigError, match=f"cache='{cache}'.*Leave"):
        registry.get("sampler", name)(cache=cache)


@pytest.mark.parametrize("cache", STALE)
def test_one_step_a_block_is_exact(tiny_policies, cache):
    """Where every step is a block's first one nothing is ever stale."""
    policy = tiny_policies["masked"]
    options = {"num_steps": 4, "block_length": 10, "temperature": 1.0}
    kept, plain = draw(policy, "low_confidence", cache=cache, **options), draw(policy, "low_confidence", **options)
    assert torch.equal(kept.ids, plain.ids)
    assert torch.equal(kept.trajectory.log_probs, plain.trajectory.log_probs)
    assert kept.token_forwards == plain.token_forwards


@pytest.mark.parametrize("cache", STALE)
def test_what_is_fed_falls(tiny_policies, cache):
    options = {"num_steps": 36, "block_length": 10}
    kept, plain = (draw(tiny_policies["masked"], "low_confidence", cache=c, **options) for c in (cache, "exact"))
    assert kept.token_forwards < (0.3 if cache == "dual" else 0.5) * plain.token_forwards


def test_without_stale_keys_a_cache_of_the_masked_family_changes_nothing(tiny_policies):
    kept, plain = (draw(tiny_policies["masked"], cache=cache, block_length=10) for cache in ("exact", "none"))
    assert torch.equal(kept.ids, plain.ids) and kept.token_forwards == plain.token_forwards
    assert not kept.trajectory.is_approximate


def test_no_sampler_has_them_by_default():
    caches = {name: cls().cache for name, cls in registry.items("sampler") if hasattr(cls(), "cache")}
    assert caches and not set(caches.values()) & set(STALE), caches


@pytest.mark.parametrize("cache", STALE)
def test_a_record_of_stale_draws_is_not_replayed(tiny_policies, cache):
    policy = tiny_policies["masked"]
    prompts, out = prompts_of(policy, range(5)), draw(policy, cache=cache, block_length=10, temperature=1.0)
    valid = torch.ones(5, dtype=torch.bool)
    rollouts = Rollouts(
        prompt_ids=prompts.ids,
        prompt_mask=prompts.mask,
        completion_ids=out.as_drawn,
        completion_mask=out.mask,
        rewards=torch.zeros(5),
        group_ids=torch.zeros(5, dtype=torch.long),
        valid=valid,
        trajectory=out.trajectory,
        totals=Rollouts.count_totals(valid, torch.zeros(5), out.mask),
    )
    with pytest.raises(ConfigError, match="stale keys and values"):
        policy.process.replay(rollouts, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache": "prefix"}, "give block_length"),
        ({"cache": "Dual", "block_length": 10}, "give one of exact, none, prefix, dual"),
        ({"cache": True}, "give one of exact, none, prefix, dual"),
    ],
)
def test_caches_that_mean_nothing_are_refused(options, message):
    for name in ("threshold", "ancestral", "low_confidence"):
        with pytest.raises(ConfigError, match=message):
            registry.get("sampler", name)(**options)


def test_the_block_family_has_no_need_of_them(tiny_policies):
    with pytest.raises(ConfigError, match=r"cache='dual'.*block family's finished blocks never change"):
        draw(tiny_policies["block"], cache="dual", block_length=10)


@pytest.mark.parametrize("model_class", [BertForMaskedLM, Lfm2ForCausalLM])
def test_models_that_hand_out_no_keys_are_refused_by_name(model_class):
    """An encoder, and a decoder of which some layers are convolutions."""
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
    if model_class is BertForMaskedLM:
        config = BertConfig(**sizes, num_hidden_layers=2)
    else:
        config = Lfm2Config(**sizes, num_key_value_heads=2, num_hidden_layers=2, layer_types=["conv", "full_attention"])
    policy = stock_policy(model_class(config).eval())
    prompts, old, _ = two_rows(policy)
    assert policy.logits(prompts, old).shape[:2] == (2, 14)
    with pytest.raises(ConfigError, match=f"{model_class.__name__} does not hand out keys and values"):
        registry.get("sampler", "threshold")(cache="prefix", block_length=7).generate(policy, prompts, seed=0)


def test_what_is_not_fed_is_answered_as_in_the_blocks_first_step():
    """The grammar asks for later columns too; under `dual` their laws are those of the forward that filled it."""
    policy = mixing_policy(1)
    prompts, old, new = two_rows(policy)
    reader, record = CACHES["dual"].reader(policy, prompts, 5), Recorder(old, keeps_states=False)
    rows = torch.arange(2)
    first = reader.logits(rows, rows, old, torch.arange(5, 16).expand(2, -1), record)
    # Other columns now, in each row its own, and one row alone.
    columns = torch.tensor([[8, 10, 12, 15], [5, 10, 11, 14]])
    for part in (rows, rows[1:]):
        found = reader.logits(part, part, new, columns[part], record)
        for row, answer in zip(part, found, strict=True):
            assert torch.equal(answer[1:], first[row, columns[row, 1:] - 5])
            assert not torch.equal(answer[0], first[row, columns[row, 0] - 5])
    assert record.token_forwards == 2 * (7 + 36) + 2 * 5 + 5
