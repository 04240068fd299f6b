"""The output head read in tiles: terms, losses and gradients are those of whole logits, which never exist."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import CohereConfig, CohereForCausalLM

from dllm_rl import registry
from dllm_rl.likelihood.terms import WholeLogits
from dllm_rl.policies import tiles
from dllm_rl.policies.base import PolicyFacts
from dllm_rl.policies.tiles import TiledLogits
from dllm_rl.training.update import generator
from dllm_rl.training.warmstart import Batch
from tests.dllm_rl.policies.test_head import rollouts_of, stock_model, written_by_the_head
from tests.tiny_policies import make_tiny_policy, tokenizer

# Positions of a tile, few enough that every case has several.
POSITIONS = 5


def views_of(policy, rollouts):
    if policy.family == "autoregressive":
        return policy.process.exact(rollouts)
    return policy.process.elbo(rollouts, generator(0, "views"), num_draws=1)


def stock(family: str = "masked", **facts):
    """A policy on a stock decoder with two ends, one of which stands for both."""
    words = tokenizer()
    ends = (words.eos_token_id, words.convert_tokens_to_ids("a"))
    facts = PolicyFacts(family=family, canvas_length=36, end_ids=ends, **facts)
    return registry.get("policy", family)(stock_model("llama"), words, facts)


POLICIES = {
    "stock": stock,
    "stock shifted": lambda: stock(is_shifted=True),
    "stock block": lambda: stock("block", block_size=6),
    **{family: lambda family=family: make_tiny_policy(family) for family in ("autoregressive", "slot", "flow")},
}


def graded(policy, value):
    """A value, and the gradients of its sum."""
    policy.model.zero_grad()
    value = value()
    value.sum().backward()
    weights = dict(policy.model.named_parameters())
    return value.detach(), {name: weight.grad.clone() for name, weight in weights.items() if weight.grad is not None}


def assert_as_whole(policy, value, monkeypatch):
    """The value and its gradients are the same in tiles, and no more logits exist than a tile's."""
    monkeypatch.setattr(tiles, "TILE", POSITIONS * policy.vocab_size)
    whole, wanted = graded(policy, value)
    policy.reads_in_tiles = True
    heads = []
    head = policy.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _m, _i, output: heads.append(output.shape))
    found, gradients = graded(policy, value)
    hook.remove()
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted[name], atol=2e-5 * float(wanted[name].abs().max()), rtol=1e-4)
    logits = [shape for shape in heads if shape[-1] == policy.vocab_size]
    assert len(logits) > 2 and max(shape[:-1].numel() for shape in logits) <= POSITIONS
    assert policy.reads_in_tiles


@pytest.mark.parametrize("name", POLICIES)
def test_terms_of_views_and_their_gradients(name, monkeypatch):
    policy = POLICIES[name]()
    rollouts = replace(rollouts_of(policy), temperature=0.7)
    views = replace(views_of(policy, rollouts), at_temperature=True)
    assert_as_whole(policy, lambda: policy.view_log_probs(rollouts, views), monkeypatch)


@pytest.mark.parametrize("name", POLICIES)
def test_losses_of_warm_starts_and_their_gradients(name, monkeypatch):
    policy = POLICIES[name]()
    rollouts = rollouts_of(policy)
    prompts = policy.prompts(["Send.", "Join now.", "Name: Ada"], [0, 1, 2])
    batch = Batch(prompts=prompts, canvas=rollouts.completion_ids)
    assert_as_whole(policy, lambda: policy.process.warm_start_loss(policy, batch, generator(0, "n")), monkeypatch)


def test_log_odds_are_those_of_whole_logits(monkeypatch):
    head = torch.nn.Linear(8, 50)
    states, place = torch.randn(13, 8, requires_grad=True), torch.tensor([12, 0, 4, 4, 7])
    monkeypatch.setattr(tiles, "TILE", POSITIONS * 50)
    tiled = TiledLogits(states=states, logits=head, vocab_size=50, place=place)
    logits = head(states)
    whole = WholeLogits(logits=logits, total=logits.logsumexp(dim=-1), place=place)
    for one, two in ((tiled, whole),):
        found, wanted = one.log_odds(1.3), two.log_odds(1.3)
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(*(torch.autograd.grad(x.sum(), states)[0] for x in (found, wanted)))


def test_a_model_that_scales_its_logits_is_read_whole():
    """What it does after its head would be left out."""
    words = tokenizer()
    sizes = {"vocab_size": len(words), "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"pad_token_id": words.pad_token_id, "bos_token_id": None, "eos_token_id": words.eos_token_id}
    torch.manual_seed(0)
    model = CohereForCausalLM(CohereConfig(**sizes, **ids, intermediate_size=48, logit_scale=0.5)).eval()
    policy = registry.get("policy", "masked")(model, words, PolicyFacts(family="masked", canvas_length=36))
    rollouts = rollouts_of(policy)
    views = views_of(policy, rollouts)
    with torch.no_grad():
        whole = policy.view_log_probs(rollouts, views)
        policy.reads_in_tiles = True
        assert torch.equal(policy.view_log_probs(rollouts, views), whole)
        assert not policy.reads_in_tiles
        assert written_by_the_head(policy, lambda: policy.view_log_probs(rollouts, views)) == int(views.score.sum())


def test_only_large_vocabularies_are_read_in_tiles(monkeypatch):
    assert not make_tiny_policy("masked").reads_in_tiles
    monkeypatch.setattr("dllm_rl.policies.base.LARGE_VOCABULARY", 100)
    assert make_tiny_policy("masked").reads_in_tiles
