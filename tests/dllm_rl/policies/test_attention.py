"""Masks hold under every attention implementation, and a model that does not keep them is refused at load."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, RobertaConfig, RobertaForMaskedLM

from benchmarks import decoders
from dllm_rl import registry
from dllm_rl.errors import CheckpointError, ConfigError
from dllm_rl.policies.base import PolicyFacts
from dllm_rl.policies.loading import load_policy
from dllm_rl.policies.probe import check_model, refuse_length
from dllm_rl.records.types import Prompts
from tests.tiny_policies import PLANS, PROMPTS, tokenizer

LENGTH, PROMPT = 36, 96
FAMILIES = ("autoregressive", "masked", "block", "slot", "flow")


def tiny_model(kind: str, attention: str = "sdpa", **settings):
    """A stock model with random weights that are large enough for distributions to differ."""
    words = tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"pad_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id}
    config = AutoConfig.for_model(kind, vocab_size=len(words), num_key_value_heads=2, **sizes, **ids, **settings)
    config.is_causal = False
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return model


def policy_of(model, family: str):
    facts = PolicyFacts(family=family, max_prompt=PROMPT, canvas_length=LENGTH, block_size=10)
    return registry.get("policy", family)(model, tokenizer(), facts)


def distributions(policy) -> torch.Tensor:
    canvas = torch.tensor([policy.canvas.encode(plan) for plan in PLANS])
    with torch.no_grad():
        return policy.logits(policy.prompts(PROMPTS, range(3)), canvas).softmax(dim=-1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
def test_eager_attention_reads_what_sdpa_reads(kind, family):
    found = [distributions(policy_of(tiny_model(kind, attention), family)) for attention in ("sdpa", "eager")]
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_flex_attention_reads_what_sdpa_reads(family):
    """Without its kernels, which are compiled for each shape; what they are asked for is the same."""
    with torch.compiler.set_stance("force_eager"):
        flex = distributions(policy_of(tiny_model("llama", "flex_attention"), family))
    torch.testing.assert_close(flex, distributions(policy_of(tiny_model("llama"), family)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_boolean_mask_under_eager_attention_fails_the_probe(family, dtype):
    policy = policy_of(tiny_model("llama", "eager").to(dtype), family)
    check_model(policy, "right")
    policy.interface = replace(policy.interface, reads_booleans=True)
    with pytest.raises(CheckpointError, match=r"the attention mask is not kept|padding moves distributions"):
        check_model(policy, "wrong")


@pytest.mark.parametrize("family", ["masked", "flow"])
def test_experts_that_rounding_chooses_do_not_refuse_a_model_in_half_precision(family):
    """Padding makes other sums of the same numbers. The model is one where that moves a column far."""
    for dtype in (torch.float32, torch.bfloat16):
        assert decoders.verdict("olmoe", family, None, dtype) is None


@pytest.mark.parametrize("kind", ["gemma2", "gpt_oss"])
def test_decoders_without_sdpa_write_what_generate_writes(kind):
    """Their attention is eager, which adds masks to its scores."""
    settings = {"num_local_experts": 4, "num_experts_per_tok": 2} if kind == "gpt_oss" else {}
    model = tiny_model(kind, "eager", head_dim=8, **settings)
    model.config.is_causal = True
    policy = policy_of(model, "autoregressive")
    prompts = policy.prompts(PROMPTS, range(3))
    ours = registry.get("sampler", "ar")(temperature=0.0).generate(policy, prompts, seed=0).ids
    banned = [[token] for token in policy.banned_ids]
    theirs = model.generate(
        prompts.ids,
        attention_mask=prompts.mask.long(),
        max_new_tokens=LENGTH,
        do_sample=False,
        bad_words_ids=banned or None,
    )
    width = prompts.ids.shape[1]
    assert torch.equal(ours[:, : theirs.shape[1] - width], theirs[:, width:])


def saved(model, folder, **changes) -> str:
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return str(folder)


FACTS = {"max_prompt": PROMPT, "canvas_length": LENGTH}


def test_a_checkpoint_that_asks_for_eager_attention_is_the_same_policy(tmp_path):
    model = tiny_model("qwen3")
    plain = load_policy(saved(model, tmp_path / "plain"), facts={"family": "masked", **FACTS})
    path = saved(model, tmp_path / "eager", attn_implementation="eager")
    torch.testing.assert_close(
        distributions(load_policy(path, facts={"family": "masked", **FACTS})), distributions(plain), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(("family", "message"), [("masked", "not attention"), ("autoregressive", "padding moves")])
def test_decoders_with_recurrent_layers_are_refused(tmp_path, family, message):
    model = tiny_model("qwen3_next", head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
    with pytest.raises(CheckpointError, match=message):
        load_policy(saved(model, tmp_path), facts={"family": family, **FACTS})


def test_layers_that_convolve_are_refused_where_both_directions_are_read(tmp_path):
    model = tiny_model("lfm2", layer_types=["conv", "full_attention"])
    with pytest.raises(CheckpointError, match=r"not attention \(conv\)"):
        load_policy(saved(model, tmp_path), facts={"family": "masked", **FACTS})


@pytest.mark.parametrize("family", ["autoregressive", "masked"])
def test_a_window_that_the_canvas_leaves_is_refused(tmp_path, family):
    path = saved(tiny_model("mistral", sliding_window=PROMPT), tmp_path)
    with pytest.raises(ConfigError, match=r"made for 96 \(sliding_window\)"):
        load_policy(path, facts={"family": family, **FACTS})
    load_policy(path, facts={"family": family, "max_prompt": PROMPT - LENGTH, "canvas_length": LENGTH})


def test_more_positions_than_the_model_has_are_refused(tmp_path):
    path = saved(tiny_model("gpt2", n_positions=100), tmp_path)
    with pytest.raises(ConfigError, match=r"made for 100 \(max_position_embeddings\)"):
        load_policy(path, facts={"family": "masked", **FACTS})


def test_a_model_that_cannot_take_our_masks_says_why(tmp_path):
    path = saved(tiny_model("bloom", "eager"), tmp_path)
    with pytest.raises(CheckpointError, match="its forward fails"):
        load_policy(path, facts={"family": "masked", **FACTS})


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_that_are_counted_where_tokens_are_fed_fail_the_probe(family):
    """MPT: attention with linear biases (ALiBi) by the place in the feed, whatever position_ids say."""
    policy = policy_of(tiny_model("mpt", "eager"), family)
    with pytest.raises(CheckpointError, match=r"not from position_ids|that are kept between forwards"):
        check_model(policy, "wrong")


@pytest.mark.parametrize("facts", [{"block_size": 1}, {"block_size": 7, "prompt_blocks": "from_prompt"}])
def test_blocks_of_which_the_first_has_one_column_pass_the_probe(facts):
    policy = policy_of(tiny_model("llama"), "block")
    check_model(type(policy)(policy.model, policy.tokenizer, replace(policy.facts, **facts)), "right")


def test_positions_begin_where_the_model_begins_them():
    """RoBERTa numbers positions from behind its padding's, and has as many fewer."""
    words = tokenizer()
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    torch.manual_seed(0)
    config = RobertaConfig(vocab_size=len(words), max_position_embeddings=134, pad_token_id=1, **sizes)
    model = RobertaForMaskedLM(config).eval()
    policy = policy_of(model, "masked")
    ids = torch.randint(5, 250, (1, 10 + LENGTH), generator=torch.Generator().manual_seed(0))
    prompts = Prompts.left_padded([ids[0, :10].tolist()], row_ids=[0], pad_id=policy.canvas.pad_id)
    with torch.no_grad():
        own = policy.without_banned(model(input_ids=ids).logits[:, 10:].clone())
        torch.testing.assert_close(policy.logits(prompts, ids[:, 10:]), own, atol=1e-5, rtol=1e-5)
    refuse_length(policy, "right")
    policy.facts = replace(policy.facts, max_prompt=PROMPT + 1)
    with pytest.raises(ConfigError, match=r"made for 132 \(max_position_embeddings\)"):
        refuse_length(policy, "too long")
