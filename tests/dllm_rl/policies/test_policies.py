"""What every family promises: padding changes nothing, chosen columns equal all, files load as saved."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dllm_rl import registry
from dllm_rl.errors import CheckpointError, ConfigError
from dllm_rl.policies.loading import load_policy, save_policy
from dllm_rl.records.events import feed_order
from dllm_rl.records.types import Prompts
from dllm_rl.testing.policies import prompts_of
from tests.tiny_policies import PLANS, PROMPTS, make_tiny_policy, tokenizer


def canvases(policy):
    return torch.tensor([policy.canvas.encode(plan) for plan in PLANS])


def time_of(policy, rows):
    return torch.full((rows,), 0.4) if policy.family == "flow" else None


@pytest.mark.parametrize("family", registry.names("policy"))
def test_left_padding_and_batch_do_not_change_logits(tiny_policies, family):
    policy = tiny_policies[family]
    canvas = canvases(policy)
    together = policy.logits(policy.prompts(PROMPTS, range(3)), canvas, time=time_of(policy, 3))
    for row in range(3):
        alone = policy.logits(policy.prompts([PROMPTS[row]], [row]), canvas[row : row + 1], time=time_of(policy, 1))
        torch.testing.assert_close(together[row], alone[0], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", registry.names("policy"))
def test_chosen_columns_equal_all_columns(tiny_policies, family):
    policy = tiny_policies[family]
    prompts, canvas = policy.prompts(PROMPTS, range(3)), canvases(policy)
    order = None
    if family == "slot":
        order = feed_order(torch.tensor([[3, 1, 2, 0, 4, 4, 4, 4, 4]] * 3), 4, 36)
    everything = policy.logits(prompts, canvas, time=time_of(policy, 3), order=order)
    columns = torch.tensor([0, 5, 17, 35])
    some = policy.logits(prompts, canvas, columns=columns, time=time_of(policy, 3), order=order)
    torch.testing.assert_close(some, everything[:, columns], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", registry.names("policy"))
def test_banned_ids_have_no_probability(tiny_policies, family):
    policy = tiny_policies[family]
    logits = policy.logits(policy.prompts(PROMPTS, range(3)), canvases(policy), time=time_of(policy, 3))
    assert torch.isneginf(logits[..., list(policy.banned_ids)]).all()
    assert torch.isfinite(logits.logsumexp(-1)).all()


def test_causal_family_reads_nothing_ahead(tiny_policies):
    policy = tiny_policies["autoregressive"]
    prompts, canvas = policy.prompts(PROMPTS, range(3)), canvases(policy)
    changed = canvas.clone()
    changed[:, 10:] = 7
    before, after = policy.logits(prompts, canvas), policy.logits(prompts, changed)
    torch.testing.assert_close(before[:, :11], after[:, :11])
    assert not torch.allclose(before[:, 12:].nan_to_num(neginf=0), after[:, 12:].nan_to_num(neginf=0))


def test_slot_family_reads_only_what_is_fed_before(tiny_policies):
    """With slot 3 fed first, slot 0's logits react to slot 3's tokens and not the other way round."""
    policy = tiny_policies["slot"]
    prompts, canvas = policy.prompts(PROMPTS, range(3)), canvases(policy)
    order = feed_order(torch.tensor([[1, 2, 2, 0, 3, 3, 3, 3, 3]] * 3), 4, 36)
    base = policy.logits(prompts, canvas, order=order)
    late, early = canvas.clone(), canvas.clone()
    late[:, 0:4] = 9
    early[:, 12:16] = 9
    assert torch.allclose(policy.logits(prompts, late, order=order)[:, 12:16], base[:, 12:16])
    assert not torch.allclose(policy.logits(prompts, early, order=order)[:, 0:4], base[:, 0:4])


def test_cached_decoding_equals_a_full_forward(tiny_policies):
    policy = tiny_policies["autoregressive"]
    prompts, canvas = policy.prompts(PROMPTS, range(3)), canvases(policy)
    full = policy.logits(prompts, canvas)
    state = policy.start(prompts)
    for column in range(12):
        torch.testing.assert_close(state.logits, full[:, column], atol=5e-5, rtol=1e-4)
        policy.advance(state, canvas[:, column, None])


def test_rows_fed_at_their_own_pace_equal_a_full_forward(tiny_policies):
    """Several tokens in one forward, rows of unequal shares, and canvases that begin with tokens of their own."""
    policy = tiny_policies["autoregressive"]
    prompts, canvas = policy.prompts(PROMPTS, range(3)), canvases(policy)
    full = policy.logits(prompts, canvas)

    def parts(done, counts):
        width = max(counts)
        shifts = torch.tensor(counts)[:, None] - width + torch.arange(width)
        real = shifts >= 0
        return torch.where(real, canvas.gather(1, (done[:, None] + shifts).clamp(min=0)), 0), real

    done = torch.tensor([2, 0, 3])
    state = policy.start(prompts, canvas[:, :3], torch.arange(3) < done[:, None])
    for counts in ([1, 4, 2], [5, 1, 1], [2, 2, 2], [1, 7, 3]):
        torch.testing.assert_close(state.logits, full[torch.arange(3), done], atol=5e-5, rtol=1e-4)
        policy.advance(state, *parts(done, counts))
        done = done + torch.tensor(counts)
    policy.select_rows(state, torch.tensor([2, 0]))
    done, canvas = done[[2, 0]], canvas[[2, 0]]
    policy.advance(state, *parts(done, [2, 1]))
    torch.testing.assert_close(state.logits, full[[2, 0], done + torch.tensor([2, 1])], atol=5e-5, rtol=1e-4)


def test_a_prompt_that_does_not_fit_is_refused(tiny_policies):
    with pytest.raises(ConfigError, match="nothing is ever cut"):
        tiny_policies["masked"].prompts(["word " * 200], [0])


def test_a_plan_that_does_not_fit_is_refused(tiny_policies):
    with pytest.raises(ConfigError, match="does not fit"):
        tiny_policies["masked"].canvas.encode('fill p1.e1 "' + "Anna " * 30 + '"')


@pytest.mark.parametrize("plan", PLANS)
def test_canvas_round_trip_and_scored_positions(tiny_policies, plan):
    canvas = tiny_policies["masked"].canvas
    ids = torch.tensor([canvas.encode(plan)])
    assert canvas.decode(ids[0]) == plan
    scored = canvas.visible(ids)[0]
    kept = ids[0][scored].tolist()
    assert canvas.fill_id not in kept
    assert canvas.pad_id not in kept
    assert kept[-1] == canvas.eos_id
    assert ids.shape[1] == 36


@pytest.mark.parametrize(
    "text", ['fill p1.e1 "a \\"b\\" c"', 'fill p1.e1 ""', 'select p2.e10 "Über 5 €"', "submit p1.e3"]
)
def test_tokenizer_round_trip_of_any_plan_text(text):
    assert tokenizer().decode(tokenizer().encode(text)) == text


def test_save_and_load_give_the_same_policy(tmp_path, tiny_policies):
    policy = tiny_policies["flow"]
    digest = save_policy(policy, tmp_path / "flow")
    loaded = load_policy(str(tmp_path / "flow"))
    prompts, canvas, time = policy.prompts(PROMPTS, range(3)), canvases(policy), torch.full((3,), 0.3)
    torch.testing.assert_close(loaded.logits(prompts, canvas, time=time), policy.logits(prompts, canvas, time=time))
    assert loaded.facts == policy.facts
    assert digest == save_policy(policy, tmp_path / "again")


def test_saving_removes_nothing_but_a_saved_policy(tmp_path, tiny_policies):
    policy = tiny_policies["masked"]
    (tmp_path / "first.old").mkdir()
    save_policy(policy, tmp_path / "first")
    save_policy(policy, tmp_path / "first")
    run = tmp_path / "first" / "run"
    run.mkdir()
    for place in (tmp_path / "first", tmp_path):
        with pytest.raises(CheckpointError, match=r"it would be removed\. Give a folder that is new"):
            save_policy(policy, place)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="is a file"):
        save_policy(policy, tmp_path / "notes.txt")
    assert run.is_dir() and sorted(path.name for path in tmp_path.iterdir()) == ["first", "first.old", "notes.txt"]


def test_a_damaged_checkpoint_is_refused(tmp_path, tiny_policies):
    save_policy(tiny_policies["masked"], tmp_path / "masked")
    weights = tmp_path / "masked" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="corrupt"):
        load_policy(str(tmp_path / "masked"))


def test_missing_checkpoint_says_what_to_give(tmp_path):
    with pytest.raises(CheckpointError):
        load_policy(str(tmp_path / "nothing"))


@pytest.mark.parametrize("family", ["autoregressive", "masked"])
def test_a_stock_hugging_face_decoder_serves_as_policy(tmp_path, family):
    """The code path of larger checkpoints, on a tiny Llama made here."""
    words = tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=words.pad_token_id,
        bos_token_id=None,
        eos_token_id=words.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    facts = {"family": family, "canvas_length": 36}
    policy = load_policy(str(tmp_path), facts=facts)
    canvas = torch.tensor([policy.canvas.encode(plan) for plan in PLANS])
    prompts = policy.prompts(PROMPTS, range(3))
    logits = policy.logits(prompts, canvas)
    changed = canvas.clone()
    changed[:, 20:] = 5
    reads_ahead = not torch.allclose(
        policy.logits(prompts, changed)[:, :10].nan_to_num(neginf=0), logits[:, :10].nan_to_num(neginf=0)
    )
    assert reads_ahead == (family == "masked")
    alone = policy.logits(policy.prompts([PROMPTS[1]], [1]), canvas[1:2])
    torch.testing.assert_close(alone[0], logits[1], atol=1e-4, rtol=1e-3)


def test_facts_refuse_unknown_keys(tmp_path, tiny_policies):
    save_policy(tiny_policies["masked"], tmp_path / "masked")
    config_file = tmp_path / "masked" / "config.json"
    config = json.loads(config_file.read_text())
    config["policy"]["slotsize"] = 4
    config_file.write_text(json.dumps(config))
    (tmp_path / "masked" / "digest.json").unlink()
    with pytest.raises(ConfigError, match="slot_size"):
        load_policy(str(tmp_path / "masked"))


def test_prompt_rows_are_named_by_the_caller(tiny_policies):
    prompts: Prompts = tiny_policies["masked"].prompts(PROMPTS, [5, 9, 2])
    assert prompts.row_ids.tolist() == [5, 9, 2]
    assert make_tiny_policy("masked").facts == tiny_policies["masked"].facts


def test_a_model_that_keeps_nothing_between_forwards_is_refused_and_one_that_hides_it_is_not(tiny_policies):
    """Code from a hub may take keys and values among its keyword arguments."""
    policy = tiny_policies["autoregressive"]

    class Hidden(type(policy.model)):
        def forward(self, input_ids, attention_mask, position_ids, **rest):
            return super().forward(input_ids, attention_mask, position_ids, **rest)

    class Forgetful(type(policy.model)):
        def forward(self, input_ids, attention_mask, position_ids, column_ids=None, previous_ids=None):
            raise AssertionError("it must not be asked")

    def write(model_class):
        model = model_class(policy.model.config).eval()
        model.load_state_dict(policy.model.state_dict())
        same = type(policy)(model, policy.tokenizer, policy.facts)
        return registry.get("sampler", "ar")(temperature=0.0).generate(same, prompts_of(same, (0, 1)), seed=0).ids

    assert torch.equal(write(Hidden), write(type(policy.model)))
    with pytest.raises(ConfigError, match="the forward of Forgetful takes neither `cache` nor `past_key_values`"):
        write(Forgetful)
