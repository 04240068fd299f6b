"""RPD: the layers' predictions are those of a model that ends there, and the rule is its definition, row by row."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import PolicyFacts
from dllm_rl.policies.lens import LayerLens, num_layers
from dllm_rl.policies.tiny import TinyConfig, TinyForPlans
from dllm_rl.testing.policies import prompts_of, tokenizer
from tests.samplers.rules.test_rules import context
from tests.samplers.several_a_step import SEVERAL_A_STEP

DEPTH = 4
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "num_hidden_layers": DEPTH,
}


def layers_of(model):
    return model.blocks if isinstance(model, TinyForPlans) else model.model.layers


def masked_policy(model, *, is_shifted=False):
    facts = PolicyFacts(family="masked", max_prompt=96, canvas_length=16, is_shifted=is_shifted)
    return registry.get("policy", "masked")(model.eval(), tokenizer(), facts)


def tiny_model():
    torch.manual_seed(0)
    model = TinyForPlans(TinyConfig(vocab_size=len(tokenizer()), **SIZES))
    with torch.no_grad():
        model.embed.weight.mul_(30.0)
    return model


def llama_model():
    torch.manual_seed(0)
    config: Any = LlamaConfig(vocab_size=len(tokenizer()), tie_word_embeddings=True, initializer_range=0.25, **SIZES)
    return LlamaForCausalLM(config)


@torch.no_grad()
@pytest.mark.parametrize(("make", "is_shifted"), [(tiny_model, False), (llama_model, False), (llama_model, True)])
def test_a_lens_sees_what_a_model_that_ends_at_the_layer_predicts(make, is_shifted):
    model = make()
    policy = masked_policy(model, is_shifted=is_shifted)
    prompts, canvas = prompts_of(policy, (0, 1)), policy.empty_canvas(2)
    canvas[:, 3] = 70
    columns = torch.stack([torch.arange(16), torch.arange(16).flip(0)])
    lens = LayerLens(model, DEPTH)
    logits = policy.logits(prompts, canvas, columns=columns, lens=lens)
    torch.testing.assert_close(logits, policy.logits(prompts, canvas, columns=columns))
    shorter = []
    for depth in range(1, DEPTH + 1):
        ended = copy.deepcopy(model)
        del layers_of(ended)[depth:]
        shorter.append(masked_policy(ended, is_shifted=is_shifted).logits(prompts, canvas, columns=columns).softmax(-1))
    token = shorter[-1].argmax(-1, keepdim=True)
    chances = torch.stack([layer.gather(-1, token)[..., 0] for layer in shorter])
    agrees = torch.stack([layer.argmax(-1) == token[..., 0] for layer in shorter])
    assert len(lens.agreement.unique()) > 1, "some positions must have a history"
    for place in range(columns.numel()):
        here = agrees.flatten(1)[:, place].tolist()[::-1]
        length = here.index(False) if False in here else DEPTH
        assert lens.agreement.flatten()[place] == length
        own = chances.flatten(1)[-length:, place]
        torch.testing.assert_close(lens.drop.flatten()[place], own.max() - own[-1], atol=1e-5, rtol=1e-4)
    few = LayerLens(model, 2)
    policy.logits(prompts, canvas, columns=columns, lens=few)
    assert torch.equal(few.agreement, lens.agreement.clamp(max=2))


def test_models_whose_layers_cannot_be_read_are_refused():
    scaled: Any = tiny_model()
    other: Any = nn.Module()
    policy = masked_policy(scaled)
    scaled.register_forward_hook(lambda module, inputs, output: setattr(output, "logits", 2 * output.logits))
    with pytest.raises(ConfigError, match="not its output embedding's"):
        registry.get("sampler", "rpd")().generate(policy, prompts_of(policy, (0,)), seed=0)
    other.config = scaled.config
    with pytest.raises(ConfigError, match="does not keep its layers"):
        num_layers(other)


@pytest.mark.parametrize("seed", range(4))
def test_it_takes_candidates_from_left_to_right_within_its_budget(seed):
    here = context(seed, scale=2.5, rows=40)
    generator = torch.Generator().manual_seed(seed)
    agreement = torch.randint(1, 7, here.is_open.shape, generator=generator)
    drop = 0.3 * torch.rand(here.is_open.shape, generator=generator)
    here = replace(here, memory={"agreement": agreement, "drop": drop})
    options = {"threshold": 0.9, "least_confidence": 0.4, "stability": 2.5, "max_agreement": 4}
    rule = registry.get("sampler", "rpd")(**options, drop_weight=10.0, budget=1.2, window=3)
    chosen = rule.choose(here) & here.is_open
    p = here.logits.double().softmax(-1)
    best, entropy = p.amax(-1), -(p * p.log()).sum(-1)
    kinds = {"high": 0, "stable": 0, "too far": 0, "none": 0}
    for row in range(40):
        passed, expected = 0.0, []
        places = here.is_open[row].nonzero().flatten().tolist()
        for place in places:
            stable = min(agreement[row, place].item(), 4) - 10.0 * drop[row, place].item() >= 2.5
            is_high = best[row, place] >= 0.9
            if not (is_high or (best[row, place] >= 0.4 and stable)):
                passed += entropy[row, place].item()
            elif passed > 1.2:
                kinds["too far"] += 1
                passed += entropy[row, place].item()
            else:
                kinds["high" if is_high else "stable"] += 1
                expected.append(place)
        if not expected:
            kinds["none"] += 1
            expected = [max(places[:3], key=lambda place, row=row: best[row, place].item())]
        assert chosen[row].nonzero().flatten().tolist() == expected
    assert all(kinds.values()), kinds


def test_without_a_budget_it_writes_from_left_to_right(tiny_policies):
    policy, out = tiny_policies["masked"], {}
    for budget, window in ((0.0, 1), (1e9, 32)):
        options = SEVERAL_A_STEP["rpd"] | {"budget": budget, "window": window}
        rule = registry.get("sampler", "rpd")(**options)
        out[budget] = rule.generate(policy, prompts_of(policy, range(6)), seed=0)
    turns_back = {
        budget: sum(bool((row[row >= 0].diff() < 0).any()) for row in drawn.trajectory.commit_step)
        for budget, drawn in out.items()
    }
    assert turns_back[0.0] == 0 and turns_back[1e9] > 1
    assert out[1e9].nfe < out[0.0].nfe


def test_settings_that_no_token_can_meet_are_refused(tiny_policies):
    rule = registry.get("sampler", "rpd")
    for options in ({"least_confidence": 0.9}, {"window": 0}, {"budget": -1.0}, {"guidance": 1.0}, {"drop_weight": -1}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            rule(**options)
    policy = tiny_policies["masked"]
    with pytest.raises(ConfigError, match="stability=3: no token reaches it, as at most 2 agreeing layers"):
        rule(stability=3).generate(policy, prompts_of(policy, (0,)), seed=0)
