"""Slots as published: serial blocks, keys of finished slots that are kept, and verification by the next token."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import PolicyFacts
from dllm_rl.policies.slot import SlotPolicy
from dllm_rl.records.types import Prompts
from dllm_rl.testing.policies import random_policy
from dllm_rl.testing.sampler import SAMPLER_PROPERTIES, SamplerCase
from samplers.hf.generate import TokenIds

VERIFIED = {"verification": True, "cache": "exact"}
EOS, PAD, LENGTH, SIZE = 2, 0, 24, 4
NEVER = 8 * LENGTH


@pytest.fixture(scope="module")
def policy():
    """A stock decoder, whose random weights repeat themselves less than those of the built-in model."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    config = Qwen3Config(vocab_size=50, num_attention_heads=4, num_key_value_heads=2, **sizes)
    model = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(10.0)
        model.lm_head.weight.mul_(2.0)
    ids = TokenIds(eos_token_id=EOS, pad_token_id=PAD, mask_token_id=3, num_ids=50)
    return SlotPolicy(model, ids, PolicyFacts(family="slot", canvas_length=LENGTH, slot_size=SIZE))


def prompts_of(rows):
    """Of several lengths."""
    encoded = [[5 + (7 * row + place) % 40 for place in range(4 + row % 5)] for row in rows]
    return Prompts.left_padded(encoded, row_ids=list(rows), pad_id=PAD)


def draw(policy, rows=range(6), *, temperature=0.0, **options):
    sampler = registry.build("sampler", "slots", {"temperature": temperature, **options})
    return sampler.generate(policy, prompts_of(tuple(rows)), seed=5)


def first_block_ends(out):
    """How much later the first twelve columns are full than one of the others is begun, in steps."""
    joined = out.trajectory.slot_joined
    never = joined == joined.max()
    first, second = joined.masked_fill(never, -1)[:, :3], joined[:, 3:]
    return first.amax(dim=1) - second.amin(dim=1)


@pytest.mark.parametrize("options", [{}, {"block_length": 12}, {"slot_threshold": 0.9, "token_threshold": 0.9}])
def test_kept_keys_change_nothing_but_what_is_fed(policy, options):
    """Rows settle other numbers of slots, and leave the batch at other times."""
    plain, kept = (draw(policy, temperature=0.7, cache=cache, **options) for cache in ("prompt", "exact"))
    assert torch.equal(plain.ids, kept.ids)
    assert torch.equal(plain.trajectory.slot_joined, kept.trajectory.slot_joined)
    torch.testing.assert_close(plain.trajectory.log_probs, kept.trajectory.log_probs, atol=2e-5, rtol=0)
    assert kept.nfe == plain.nfe and kept.token_forwards < plain.token_forwards


def test_a_finished_slot_is_fed_once_more_and_never_again(policy):
    """With one slot at a time, column by column: all of what is open, and each finished slot in one forward."""
    out = draw(policy, rows=(0,), slot_threshold=1.0, token_threshold=1.0, cache="exact")
    num_slots, prompt = LENGTH // SIZE, 4
    still_open = sum(SIZE * (LENGTH - SIZE * done) for done in range(num_slots))
    assert out.trajectory.slot_joined.max() < NEVER
    assert out.token_forwards == prompt + still_open + (num_slots - 1) * SIZE


def test_a_serial_block_is_full_before_a_later_slot_is_opened(policy):
    options = {"temperature": 1.0, "slot_threshold": 1.0}
    assert (first_block_ends(draw(policy, block_length=12, **options)) < 0).all()
    assert (first_block_ends(draw(policy, **options)) >= 0).any(), "the option would have no effect"


@pytest.mark.parametrize("has_blocks", [False, True])
def test_where_every_draft_passes_slots_are_those_of_a_sampler_that_does_not_verify(policy, has_blocks):
    options = {"token_threshold": 0.0, "slot_threshold": 0.3, **({"block_length": 12} if has_blocks else {})}
    one, other = draw(policy, **options).ids, draw(policy, **options, **VERIFIED).ids
    # Behind an end nothing is written where drafts are verified.
    is_endless = ~(one == EOS).any(dim=1)
    assert torch.equal(one[is_endless], other[is_endless]) and is_endless.sum() > 1


def test_at_full_thresholds_every_token_but_the_first_is_drafted_and_verified_alone(policy):
    """A slot takes a plan, a verification of the draft, and both again for each further token but the first."""
    out = draw(policy, rows=(0,), slot_threshold=1.0, token_threshold=1.0, **VERIFIED)
    num_slots = int((out.trajectory.slot_joined[0] < NEVER).sum())
    assert num_slots == LENGTH // SIZE
    # One more forward reads the prompt.
    assert out.nfe == 1 + num_slots * (2 + 2 * (SIZE - 1))


def test_verification_rejects_what_the_next_token_finds_unlikely(policy):
    """With one slot at a time everything is read in one order, so that a plain forward says what was accepted."""
    options = {"rows": (0,), "slot_threshold": 1.0, "token_threshold": 0.02}
    out = draw(policy, **options, **VERIFIED)
    assert not torch.equal(out.ids, draw(policy, **options).ids)
    joined = out.trajectory.slot_joined[0].long()
    order = (joined.argsort()[:, None] * SIZE + torch.arange(SIZE)).flatten()
    read = torch.cat([prompts_of((0,)).ids, out.ids[:, order]], dim=1)
    places = torch.cat([torch.arange(4), 4 + order])[None]
    logits = policy.model(input_ids=read, position_ids=places).logits[0, 4:-1].softmax(dim=-1)
    probability = torch.cat([torch.ones(1), logits.gather(1, read[0, 5:, None]).squeeze(1)])
    is_likely = (probability.view(-1, SIZE)[:, 1:] > 0.02).all(dim=1)
    forwards = joined.sort().values.diff(prepend=torch.tensor([-1]))
    # A plan and one verification commit a slot just where every token behind its first is likely.
    assert is_likely[forwards == 2].all() and 0 < int((forwards == 2).sum()) < len(forwards)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_are_written_together_as_alone(policy, temperature):
    options = {"slot_threshold": 0.2, "token_threshold": 0.15, "block_length": 12, "temperature": temperature}
    together = draw(policy, **options, **VERIFIED).ids
    alone = torch.cat([draw(policy, rows=(row,), **options, **VERIFIED).ids for row in range(6)])
    assert torch.equal(together, alone)


def test_what_is_kept_is_what_a_forward_over_everything_reads(policy):
    class Uncached(SlotPolicy):
        def continue_from(self, cache, tokens, keep, width):
            return self.forward(tokens, keep)

    whole = Uncached(policy.model, policy.tokenizer, policy.facts)
    options = {"slot_threshold": 0.2, "token_threshold": 0.15, **VERIFIED}
    one, other = draw(policy, **options), draw(whole, **options)
    assert torch.equal(one.ids, other.ids)
    torch.testing.assert_close(one.trajectory.log_probs, other.trajectory.log_probs, atol=2e-5, rtol=0)


# Of the rest, those of replays and grammars are not promised here, and rows are filled up to the longest.
KEPT = (
    "complete",
    "padding_follows_the_end",
    "draws_are_scored",
    "the_prompt_is_text",
    "rows_are_independent",
    "left_padding",
    "seeds_decide",
    "states_lead_to_the_text",
    "done_rows_stay",
    "counts_are_honest",
)


@pytest.mark.parametrize("name", KEPT)
def test_the_verified_sampler_keeps_what_every_sampler_promises(name):
    """On the built-in model, which also reads the tokens fed just before each one."""
    sampler, policy = registry.get("sampler", "slots"), random_policy("slot", canvas_length=16)
    SAMPLER_PROPERTIES[name](SamplerCase(sampler_class=sampler, policy=policy, options=VERIFIED))


@pytest.mark.parametrize("slot_threshold", [0.2, 1.0])
def test_an_end_ends_the_text_and_what_stands_before_it_is_written(policy, slot_threshold):
    """Whether slots are verified one after another or go on side by side."""
    out = draw(policy, slot_threshold=slot_threshold, token_threshold=0.15, temperature=1.0, rows=range(12), **VERIFIED)
    is_end = out.ids == EOS
    assert is_end.any() and not is_end.any(dim=1).all(), "the case would show nothing"
    behind = (is_end.long().cumsum(dim=1) - is_end.long()) > 0
    assert (out.ids[behind] == PAD).all() and (out.ids != policy.mask_id).all()
    is_before = ~behind.unflatten(1, (-1, SIZE))[:, :, 0]
    assert (out.trajectory.slot_joined[is_before] < NEVER).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"verification": True}, "Set cache: exact"),
        ({**VERIFIED, "grammar": True}, "Leave one of the two out"),
        ({"block_length": 6}, "Give a multiple of 4"),
        ({"block_length": 0}, "integer of at least 1"),
        ({"cache": "dual"}, "prompt"),
    ],
)
def test_what_cannot_be_had_is_refused(policy, options, message):
    with pytest.raises(ConfigError, match=message):
        draw(policy, **options)


def test_objectives_that_replay_refuse_drafts_that_were_taken_back():
    sampler = registry.build("sampler", "slots", VERIFIED)
    assert sampler.approximation is not None
    assert registry.build("sampler", "slots", {"cache": "exact"}).approximation is None
