"""transformers' own `generate` runs our loop, and each trap of its conventions is handled or refused."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GenerationConfig,
    GenerationMixin,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
    Qwen2Config,
    Qwen2ForCausalLM,
    StoppingCriteria,
    StoppingCriteriaList,
    TextDiffusionStreamer,
)

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import PolicyFacts
from dllm_rl.policies.loading import load_policy
from dllm_rl.testing.policies import PAGES, prompts_of
from dllm_rl.testing.sampler import is_grounded
from samplers.hf import diffusion_generate
from samplers.hf.generate import policy_of

MASK, EOS, PAD = 3, 2, 0


def decoder(**settings):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=50, eos_token_id=EOS, pad_token_id=PAD, bos_token_id=1, **sizes, **settings)
    config.is_causal = False
    config.mask_token_id = MASK
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(40)
    return model


@pytest.fixture(scope="module")
def model():
    return decoder()


IDS = torch.tensor([[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]])
PADDED = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])


def generate(model, ids=IDS[1:], **options):
    settings = {"max_new_tokens": 12, "sampler": "entropy_bound", **options}
    return model.generate(ids, custom_generate=diffusion_generate, **settings)


class Drafts:
    """A streamer that keeps what it is given."""

    def __init__(self, takes_logits=False):
        self.puts, self.drafts, self.ended, self._takes_logits = [], [], False, takes_logits

    def put(self, value):
        self.puts.append(value)

    def put_draft(self, value=None, logits=None):
        self.drafts.append(value if logits is None else logits)

    def end(self):
        self.ended = True


def test_a_built_in_policy_writes_what_its_sampler_writes():
    policy = load_policy("builtin:masked")
    rule = registry.get("sampler", "entropy_bound")(temperature=0.0, block_length=32)
    prompts = policy.prompts(["task: Name: Anna\npage 1: Join\np1.e1 Name : text\n", "task: Town: Rome\n"], range(2))
    expected = rule.generate(policy, prompts, seed=0)
    out = policy.model.generate(
        prompts.ids,
        attention_mask=prompts.mask.long(),
        custom_generate=diffusion_generate,
        sampler="entropy_bound",
        block_length=32,
        return_dict_in_generate=True,
    )
    assert torch.equal(out.sequences, torch.cat([prompts.ids, expected.ids], dim=1))
    assert out.nfe <= expected.nfe * 2 and out.finish_reason == ("eos", "eos")


@pytest.mark.parametrize("family", ["masked", "slot", "flow", "autoregressive"])
def test_every_family_writes_under_the_grammar(tiny_policies, family):
    policy = tiny_policies[family]
    prompts = prompts_of(policy, range(3))
    sequences = policy.model.generate(
        prompts.ids,
        attention_mask=prompts.mask.long(),
        custom_generate=diffusion_generate,
        policy=policy,
        grammar=True,
        pages=PAGES,
    )
    plans = [policy.canvas.decode(row) for row in sequences[:, prompts.ids.shape[1] :]]
    assert all(is_grounded(page, plan) for page, plan in zip(PAGES, plans, strict=True)), plans


def test_left_to_right_is_what_generate_writes(tiny_policies):
    """Greedy, on a decoder of transformers' own: with prompts of unequal length, of which some end and some do not."""
    words = tiny_policies["autoregressive"].tokenizer
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
    )
    twin = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        twin.lm_head.weight.mul_(40)
        twin.lm_head.weight[words.eos_token_id] *= 2
    facts = PolicyFacts(family="autoregressive", max_prompt=96, canvas_length=24)
    policy = registry.get("policy", "autoregressive")(twin, words, facts)
    prompts = prompts_of(policy, range(3))
    written = registry.get("sampler", "ar")(temperature=0.0).generate(policy, prompts, seed=0)
    whole = twin.generate(
        prompts.ids,
        attention_mask=prompts.mask.long(),
        do_sample=False,
        max_new_tokens=24,
        suppress_tokens=list(policy.banned_ids),
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )[:, prompts.ids.shape[1] :]
    assert torch.equal(written.ids[:, : whole.shape[1]], whole)
    assert (written.ids[:, whole.shape[1] :] == words.pad_token_id).all()
    has_end = (written.ids == words.eos_token_id).any(dim=1)
    assert has_end.any() and not has_end.all() and written.ids.unique().numel() > 5


def test_the_hook_equals_the_direct_call(model):
    kwargs = {"seed": 4, "sampler_config": {"gamma": 0.3}, "block_length": 5}
    through = generate(model, IDS, attention_mask=PADDED, do_sample=True, temperature=0.7, top_k=0, **kwargs)
    config = model.generation_config.__class__(
        do_sample=True, temperature=0.7, max_new_tokens=12, eos_token_id=EOS, pad_token_id=PAD
    )
    from transformers import TemperatureLogitsWarper

    processors, none = LogitsProcessorList([TemperatureLogitsWarper(0.7)]), StoppingCriteriaList()
    direct = diffusion_generate(
        model, IDS, processors, none, config, sampler="entropy_bound", attention_mask=PADDED, **kwargs
    )
    assert torch.equal(through, direct)
    assert through.shape == (2, 5 + 12) and not (through[:, 5:] == MASK).any()
    assert torch.equal(through[:, :5], IDS)


def test_padding_on_the_left_changes_nothing(model):
    alone = generate(model, IDS[:1, 2:])
    padded = generate(model, IDS, attention_mask=PADDED)
    assert torch.equal(alone[0, 3:], padded[0, 5:])


def test_padding_on_the_right_is_refused(model):
    with pytest.raises(ConfigError, match="on the left"):
        generate(model, IDS, attention_mask=PADDED.flip(1))


def test_a_mask_in_the_prompt_is_left_alone(model):
    ids = torch.tensor([[8, MASK, 10, MASK]])
    out = generate(model, ids)
    assert torch.equal(out[:, :4], ids) and not (out[:, 4:] == MASK).any()


def test_an_encoder_writes_directly_and_through_generate():
    class BertForDiffusion(BertForMaskedLM, GenerationMixin):
        pass

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        pad_token_id=PAD,
    )
    model = BertForDiffusion(config).eval()
    out = generate(model, eos_token_id=EOS, mask_token_id=MASK)
    given = model.generation_config.__class__(max_new_tokens=12, eos_token_id=EOS, pad_token_id=PAD)
    rest = LogitsProcessorList(), StoppingCriteriaList(), given
    direct = diffusion_generate(model, IDS[1:], *rest, sampler="entropy_bound", mask_token_id=MASK)
    assert torch.equal(out, direct) and out.shape == (1, 17) and not (out == MASK).any()


def test_lengths(model):
    assert generate(model, max_new_tokens=7).shape[1] == 5 + 7
    assert generate(model, max_new_tokens=None, max_length=25 - 8).shape[1] == 17
    with pytest.warns(UserWarning, match="model-agnostic default"):
        assert generate(model, max_new_tokens=None, block_length=64, threshold=None).shape[1] == 5 + 128


def test_a_canvas_longer_than_the_model_knows_is_refused(tiny_policies):
    policy = tiny_policies["masked"]
    policy.model.config.policy = policy.facts.to_dict()
    with pytest.raises(ConfigError, match="has 36 columns"):
        policy.model.generate(
            IDS[1:], custom_generate=diffusion_generate, max_new_tokens=40, mask_token_id=2, eos_token_id=1
        )


def test_the_temperature_acts_once(model):
    """As a field, as a processor of the caller's, and as both halves of it: the same text."""
    from transformers import TemperatureLogitsWarper

    def text(temperature, *processors):
        given = LogitsProcessorList([TemperatureLogitsWarper(value) for value in processors])
        return generate(
            model, do_sample=True, temperature=temperature, top_k=0, logits_processor=given, sampler="random"
        )

    assert torch.equal(text(0.25), text(1.0, 0.25)) and torch.equal(text(0.25), text(0.5, 0.5))
    assert not torch.equal(text(0.25), text(2.5))


def test_greedy_ignores_the_temperature(model):
    assert torch.equal(generate(model), generate(model, do_sample=False, sampler_config={"gamma": 0.1}))


def test_top_k_acts_at_the_draw_and_leaves_the_ranks(model):
    """top_k=1 draws each position's best token, in the order of the whole laws: the greedy text."""
    sampled = generate(model, do_sample=True, top_k=1, sampler="low_confidence", max_denoising_steps=12)
    assert torch.equal(sampled, generate(model, sampler="low_confidence", max_denoising_steps=12))


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"top_k": 0}, False), ({"top_k": 50}, True), ({"top_k": 0, "suppress_tokens": [7]}, True)],
)
def test_a_record_of_processed_draws_is_approximate(model, options, expected):
    """A replay by full forwards does not see what processors did."""
    seen = []
    out = generate(
        model,
        do_sample=True,
        sampler="random",
        return_dict_in_generate=True,
        callback_on_step_end=lambda *_: seen.append(1),
        **options,
    )
    assert seen and out.trajectory.is_approximate is expected


def test_min_p_and_suppressed_tokens(model):
    narrow = generate(model, do_sample=True, top_k=0, min_p=1.0, sampler="margin", max_denoising_steps=12)
    greedy = generate(model, sampler="margin", max_denoising_steps=12)
    assert torch.equal(narrow, greedy)
    banned = greedy[0, 5:].unique().tolist()
    without = generate(model, suppress_tokens=banned, sampler="margin")
    assert not torch.isin(without[0, 5:], torch.tensor([token for token in banned if token != PAD])).any()


class Shift(LogitsProcessor):
    """Stateless, and of the caller's own: one token is made certain."""

    def __init__(self):
        self.shapes = []

    def __call__(self, input_ids, scores):
        self.shapes.append((tuple(input_ids.shape), tuple(scores.shape)))
        scores = scores.clone()
        scores[:, 17] += 1e4
        return scores


def test_a_processor_of_the_callers_sees_one_row_a_position(model):
    shift = Shift()
    out = generate(model, IDS, attention_mask=PADDED, logits_processor=LogitsProcessorList([shift]))
    assert (out[:, 5:] == 17).all()
    assert shift.shapes[0] == ((2 * 12, 5 + 12), (2 * 12, 50))


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ({"repetition_penalty": 1.2}, "RepetitionPenalty"),
        ({"no_repeat_ngram_size": 2}, "NoRepeatNGram"),
        ({"sequence_bias": [[[7], -2.0]]}, "SequenceBias"),
        ({"min_new_tokens": 3}, "Min.*Length"),
        ({"forced_eos_token_id": EOS}, "ForcedEOS"),
        ({"prefix_allowed_tokens_fn": lambda batch, ids: [5]}, "PrefixConstrained"),
        ({"bad_words_ids": [[7, 8]]}, "BadWords|SequenceBias"),
    ],
)
def test_processors_that_need_a_prefix_are_refused(model, option, name):
    with pytest.raises(ConfigError, match=name):
        generate(model, **option)


def test_beams_and_caches_of_the_callers_are_refused(model):
    with pytest.raises(ConfigError, match="no beams"):
        generate(model, num_beams=2)
    cache = model(IDS[1:], use_cache=True).past_key_values
    with pytest.raises(ConfigError, match="past_key_values"):
        generate(model, torch.cat([IDS[1:], IDS[1:]], dim=1), past_key_values=cache)


def test_return_sequences_are_drawn_apart(model):
    out = generate(model, do_sample=True, top_k=0, num_return_sequences=3, sampler="random", temperature=3.0)
    assert out.shape == (3, 17) and len({tuple(row) for row in out.tolist()}) == 3


def test_torch_keeps_its_random_state(model):
    before = torch.get_rng_state()
    generate(model, do_sample=True)
    assert torch.equal(before, torch.get_rng_state())


def test_what_stands_behind_the_end_is_streamed_as_padding(model):
    """The loop leaves masks there, which no reader of a stream should see."""
    streamer = Drafts()
    banned = torch.full((50,), -torch.inf)
    banned[EOS] = 0.0

    class Ends(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return scores + banned

    options = {"logits_processor": LogitsProcessorList([Ends()]), "sampler": "low_confidence"}
    out = generate(model, draft_streamer=streamer, max_denoising_steps=2, **options)
    shown = torch.cat(streamer.puts, dim=1)
    assert not (shown == MASK).any()
    assert torch.equal(shown[:, : out.shape[1]], out)


def test_a_temperature_of_the_samplers_configuration_is_not_lost(model):
    config = {"temperature": 2.0}
    drawn = generate(model, sampler="random", sampler_config=config)
    asked = generate(model, sampler="random", do_sample=True, top_k=0, temperature=2.0)
    assert torch.equal(drawn, asked)
    assert not torch.equal(drawn, generate(model, sampler="random"))
    with pytest.raises(ConfigError, match="Give one of them"):
        generate(model, sampler="random", sampler_config=config, do_sample=True, temperature=0.5)


def test_the_grammar_needs_a_tokenizer(model):
    with pytest.raises(ConfigError, match="comes without a tokenizer"):
        generate(model, sampler="low_confidence", grammar=True, pages=[PAGES[0]])


def test_a_policy_of_the_callers_is_not_asked_for_more_columns_than_it_has(tiny_policies):
    policy = tiny_policies["masked"]
    prompts = prompts_of(policy, (0,))
    with pytest.raises(ConfigError, match="this model's canvas has 36 columns"):
        diffusion_generate(
            policy.model, prompts.ids, LogitsProcessorList(), StoppingCriteriaList(),
            GenerationConfig(max_new_tokens=40, eos_token_id=policy.canvas.eos_id), policy=policy,
        )  # fmt: skip


@pytest.mark.parametrize("family", ["autoregressive", "masked"])
def test_one_id_for_padding_and_end_still_ends(family):
    """As tokenizers without a padding token have it (GPT-2, Llama's base models)."""
    both = decoder()
    both.config.is_causal = family == "autoregressive"
    wish = torch.zeros(50)
    wish[EOS] = 100.0
    both.lm_head.register_forward_hook(lambda module, inputs, logits: logits + wish)
    out = generate(both, sampler=None, policy_family=family, pad_token_id=EOS, return_dict_in_generate=True)
    assert out.sequences[0, IDS.shape[1]] == EOS
    assert out.finish_reason == ("eos",)
    assert out.tokens_per_forward > 0


def test_drafts_are_streamed(model):
    streamer = Drafts()
    out = generate(model, draft_streamer=streamer, block_length=4, return_dict_in_generate=True)
    assert torch.equal(streamer.puts[0], IDS[1:])
    assert torch.equal(torch.cat(streamer.puts, dim=1), out.sequences[:, : sum(put.shape[1] for put in streamer.puts)])
    assert len(streamer.drafts) == out.nfe and streamer.ended
    masks = [int((draft == MASK).sum()) for draft in streamer.drafts]
    assert masks == sorted(masks, reverse=True) and masks[0] > masks[-1]


def test_a_streamer_may_take_logits(model):
    streamer = Drafts(takes_logits=True)
    generate(model, draft_streamer=streamer)
    assert streamer.drafts[0].shape == (1, 12, 50)
    assert torch.isfinite(streamer.drafts[0][..., 5]).all()


@pytest.mark.parametrize("seed", [2, 3])
def test_laws_are_of_the_whole_batch_and_there_are_none_before_the_first_forward(model, seed):
    """With a rule that waits: most steps write nothing, and then in some rows only."""
    streamer = Drafts(takes_logits=True)
    options = {"sampler": "ancestral", "max_denoising_steps": 300, "do_sample": True, "top_k": 0, "seed": seed}
    out = generate(model, IDS, attention_mask=PADDED, draft_streamer=streamer, return_dict_in_generate=True, **options)
    assert {tuple(law.shape) for law in streamer.drafts} == {(2, 12, 50)}
    assert out.nfe < len(streamer.drafts) < 300
    # What a row read when it was last asked is certain, and nobody's law is changed afterwards.
    first, last = streamer.drafts[0], streamer.drafts[-1]
    assert not torch.equal(first, last) and torch.isinf(last).any()


def test_laws_of_a_batch_are_certain_where_tokens_stand_in_every_row(model):
    """Also in a row that has fewer open columns than the one beside it."""
    streamer, canvases = Drafts(takes_logits=True), []
    generate(
        model,
        IDS,
        attention_mask=PADDED,
        draft_streamer=streamer,
        sampler="soft_threshold",
        sampler_config={"threshold": 0.5, "spread": 1000.0},
        suppress_tokens=[EOS],
        do_sample=True,
        top_k=0,
        callback_on_step_end=lambda _, step, canvas: canvases.append(canvas),
    )
    is_uneven = False
    for canvas, law in zip(canvases, streamer.drafts[1:], strict=False):
        is_open = canvas == MASK
        is_uneven |= int(is_open.sum(dim=1).min()) not in (0, int(is_open.sum(dim=1).max()))
        rows = is_open.any(dim=1)
        stands = ~is_open[rows]
        assert (law[rows][stands].isfinite().sum(dim=-1) == 1).all()
    assert is_uneven


def test_laws_come_in_the_numbers_of_the_model():
    streamer = Drafts(takes_logits=True)
    generate(decoder().double(), draft_streamer=streamer)
    assert streamer.drafts[0].dtype == torch.float64


class DreamConfig(Qwen2Config):
    """A type that code of the checkpoint's own brings."""

    model_type = "Dream"


class SDARConfig(Qwen2Config):
    model_type = "sdar"


def of_its_own_code(config_class, **settings):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = config_class(vocab_size=50, eos_token_id=EOS, num_key_value_heads=2, **sizes, **settings)
    return Qwen2ForCausalLM(config).eval()


def policy_by_generate(model, **given):
    wanted = {"num_columns": 12, "mask_id": None, "family": None, **given}
    return policy_of(model, GenerationConfig(eos_token_id=EOS, pad_token_id=PAD), **wanted)


def test_what_a_published_configuration_states_is_read():
    dream = policy_by_generate(of_its_own_code(DreamConfig, mask_token_id=MASK))
    assert (dream.family, dream.mask_id, dream.reading.is_shifted) == ("masked", MASK, True)
    sdar = of_its_own_code(SDARConfig, mask_token_id=MASK)
    with pytest.raises(ConfigError, match=r"sdar' does not state its block_size.*model\.config\.policy"):
        policy_by_generate(sdar)
    sdar.config.policy = {"block_size": 4}
    block = policy_by_generate(sdar)
    assert (block.family, block.facts.block_size, block.facts.prompt_blocks) == ("block", 4, "from_prompt")
    with pytest.raises(ConfigError, match="family='masked' was given, and the model's configuration says 'block'"):
        policy_by_generate(sdar, family="masked")


def test_a_family_with_facts_of_its_own_writes(monkeypatch):
    @dataclass(frozen=True, slots=True, kw_only=True)
    class PacedFacts(PolicyFacts):
        pace: int = 1

    facts = {"family": "paced", "facts_class": PacedFacts}
    paced = type("PacedPolicy", (registry.get("policy", "masked"),), facts)
    monkeypatch.setitem(registry._REGISTRY["policy"], "paced", paced)
    model = decoder()
    model.config.policy = {"family": "paced", "pace": 3}
    assert policy_by_generate(model).facts.pace == 3


@pytest.mark.parametrize("name", ["output_scores", "output_logits", "output_attentions"])
def test_outputs_that_are_not_kept_are_refused(model, name):
    with pytest.raises(ConfigError, match=name):
        generate(model, return_dict_in_generate=True, **{name: True})


def test_transformers_own_diffusion_streamer(tiny_policies, capsys):
    policy = tiny_policies["masked"]
    prompts = prompts_of(policy, [0])
    streamer = TextDiffusionStreamer(policy.tokenizer, skip_prompt=True, skip_special_tokens=True)
    policy.model.generate(
        prompts.ids,
        custom_generate=diffusion_generate,
        policy=policy,
        draft_streamer=streamer,
        grammar=True,
        pages=PAGES[:1],
    )
    shown = capsys.readouterr().out
    assert "submit" in shown and "\033[33m" in shown


class AfterColumns(StoppingCriteria):
    """Stops the second row as soon as its text has so many columns."""

    def __init__(self, columns):
        self.columns, self.lengths = columns, []

    def __call__(self, input_ids, scores, **kwargs):
        self.lengths.append(input_ids.shape[1])
        assert not (input_ids == MASK).any()
        stop = torch.zeros(len(input_ids), dtype=torch.bool)
        stop[1:] = input_ids.shape[1] >= self.columns
        return stop


def test_criteria_see_finished_prefixes_and_stop_rows():
    model = decoder()
    model.generation_config.eos_token_id = 49
    criterion = AfterColumns(5 + 8)
    options = {"block_length": 4, "stopping_criteria": StoppingCriteriaList([criterion]), "suppress_tokens": [49]}
    out = generate(model, IDS, attention_mask=PADDED, return_dict_in_generate=True, **options)
    assert criterion.lengths == [9, 13]
    assert out.finish_reason == ("length", "criteria")
    free = generate(model, IDS, attention_mask=PADDED, block_length=4, suppress_tokens=[49])
    assert torch.equal(out.sequences[0], free[0]) and torch.equal(out.sequences[1, :13], free[1, :13])
    assert (out.sequences[1, 13:] == PAD).all()


def test_criteria_without_blocks_are_refused(model):
    with pytest.raises(ConfigError, match="block_length"):
        generate(model, stopping_criteria=StoppingCriteriaList([AfterColumns(3)]))


def test_any_end_token_ends(model):
    text = generate(model, sampler="margin")[0, 5:].tolist()
    ends = [49, text[3]]
    out = generate(model, sampler="margin", eos_token_id=ends, return_dict_in_generate=True)
    first = out.sequences[0, 5:].tolist().index(text[3])
    assert (out.sequences[0, 5 + first + 1 :] == PAD).all() and out.finish_reason == ("eos",)


def test_tokens_a_forward_count_what_is_kept(model):
    """Kept tokens of all rows over forwards and rows: not a mean of ratios, and nothing behind the end counts."""
    options = {"attention_mask": PADDED, "sampler": "margin", "max_denoising_steps": 6}
    rows = generate(model, IDS, eos_token_id=49, **options)[:, 5:].tolist()
    end = rows[0][2]
    out = generate(model, IDS, eos_token_id=[49, end], return_dict_in_generate=True, **options)
    until = [row[: row.index(end) + 1] if end in row else row for row in rows]
    kept = sum(token != PAD for row in until for token in row)
    assert out.tokens_per_forward == pytest.approx(kept / 2 / out.nfe) and kept < 24


def test_names_and_options_are_checked(model):
    with pytest.raises(ConfigError, match="Did you mean 'entropy_bound'"):
        generate(model, sampler="entropy_bond")
    with pytest.raises(ConfigError, match="Did you mean 'gamma'"):
        generate(model, sampler_config={"gama": 1.0})
    with pytest.raises(ConfigError, match="does not write with the masked family"):
        generate(model, sampler="slots")
    with pytest.raises(ValueError, match="not used by the model"):
        generate(model, block_lenght=4)


def test_under_the_grammar_nothing_may_be_banned(tiny_policies):
    policy = tiny_policies["masked"]
    prompts = prompts_of(policy, [0])
    settings = {"custom_generate": diffusion_generate, "policy": policy, "grammar": True, "pages": PAGES[:1]}
    with pytest.raises(ConfigError, match="TopKLogitsWarper may"):
        policy.model.generate(prompts.ids, do_sample=True, **settings)
    policy.model.generate(prompts.ids, do_sample=True, top_k=0, **settings)


def test_a_policy_may_be_given_another_length(tiny_policies):
    policy = tiny_policies["masked"]
    facts = PolicyFacts(**{**policy.facts.to_dict(), "canvas_length": 20, "line_width": None})
    short = type(policy)(policy.model, policy.tokenizer, facts)
    out = policy.model.generate(
        prompts_of(policy, [0]).ids, custom_generate=diffusion_generate, policy=short, max_new_tokens=16
    )
    assert out.shape[1] == prompts_of(policy, [0]).ids.shape[1] + 16
