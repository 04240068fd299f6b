"""Scored positions only: the same terms as from all logits, and no other logits exist, whatever the model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

from dllm_rl import registry
from dllm_rl.likelihood.terms import target_log_probs
from dllm_rl.policies.base import PolicyFacts
from dllm_rl.policies.feed import Feed
from dllm_rl.policies.head import scored_only
from dllm_rl.records.types import Rollouts
from dllm_rl.training.update import generator
from tests.tiny_policies import PLANS, PROMPTS, tokenizer

LENGTH = 36


def stock_model(name: str) -> torch.nn.Module:
    words = tokenizer()
    torch.manual_seed(0)
    sizes = {"vocab_size": len(words), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    if name == "bert":
        return BertForMaskedLM(BertConfig(**sizes, intermediate_size=48)).eval()
    return LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=48, num_key_value_heads=2)).eval()


def stock_policy(name: str, family: str = "masked"):
    facts = PolicyFacts(family=family, canvas_length=LENGTH)
    return registry.get("policy", family)(stock_model(name), tokenizer(), facts)


def rollouts_of(policy) -> Rollouts:
    prompts = policy.prompts(PROMPTS, range(3))
    ids = torch.tensor([policy.canvas.encode(plan) for plan in PLANS])
    mask = policy.canvas.visible(ids)
    valid, groups = torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.long)
    return Rollouts(
        prompt_ids=prompts.ids,
        prompt_mask=prompts.mask,
        completion_ids=ids,
        completion_mask=mask,
        rewards=torch.zeros(3),
        group_ids=groups,
        valid=valid,
        trajectory=None,
        totals=Rollouts.count_totals(valid, groups, mask),
    )


def feed_of(rollouts: Rollouts, canvas: torch.Tensor) -> Feed:
    return Feed(prompt_ids=rollouts.prompt_ids, prompt_mask=rollouts.prompt_mask, canvas=canvas)


def written_by_the_head(policy, work) -> int:
    """Positions whose logits the head computed."""
    shapes = []
    head = policy.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _module, _inputs, output: shapes.append(output.shape[:-1].numel()))
    try:
        work()
    finally:
        hook.remove()
    return sum(shapes)


@pytest.mark.parametrize("name", ["llama", "bert", "masked", "block", "slot"])
def test_only_scored_positions_have_logits_and_their_terms_are_right(tiny_policies, name):
    policy = stock_policy(name) if name in ("llama", "bert") else tiny_policies[name]
    rollouts = rollouts_of(policy)
    views = policy.process.elbo(rollouts, generator(0, "views"), num_draws=1)
    with torch.no_grad():
        assert written_by_the_head(policy, lambda: policy.view_log_probs(rollouts, views)) == int(views.score.sum())
        terms = policy.view_log_probs(rollouts, views)
        for index in range(views.num_views) if name != "block" else ():
            feed = feed_of(rollouts, views.tokens[index])
            logits = policy.score(feed if views.order is None else replace(feed, order=views.order[index]))
            wanted = torch.where(views.score[index], target_log_probs(logits, rollouts.completion_ids), 0.0)
            torch.testing.assert_close(terms[index], wanted, atol=2e-5, rtol=1e-4)


def test_gradients_are_those_of_all_logits():
    policy = stock_policy("llama")
    rollouts = rollouts_of(policy)
    views = policy.process.elbo(rollouts, generator(0, "views"), num_draws=1)
    gradients = []
    for is_narrow in (True, False):
        policy.model.zero_grad()
        if is_narrow:
            total = policy.view_log_probs(rollouts, views).sum()
        else:
            logits = [policy.score(feed_of(rollouts, tokens)) for tokens in views.tokens]
            terms = torch.stack([target_log_probs(each, rollouts.completion_ids) for each in logits])
            total = terms[views.score].sum()
        total.backward()
        gradients.append([weight.grad.clone() for weight in policy.model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


class HeadlessModel(torch.nn.Module):
    """Its head is no module, so nothing can be narrowed before it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(7, 4))

    def forward(self, x):
        return x @ self.weight.T


def test_a_model_whose_head_is_not_found_gives_the_same():
    model, x = HeadlessModel(), torch.randn(2, 5, 4)
    row, place = torch.tensor([0, 1, 1]), torch.tensor([4, 0, 2])
    with scored_only(model, row, place, shape=(2, 5)) as narrowed:
        found = narrowed(model(x))
    assert torch.equal(found, model(x)[row, place][None])


def test_the_head_is_left_as_it_was_even_after_an_error():
    policy = stock_policy("llama")
    head = policy.model.get_output_embeddings()
    with pytest.raises(RuntimeError, match="stop"), scored_only(policy.model, *[torch.tensor([0])] * 2, shape=(1, 1)):
        raise RuntimeError("stop")
    assert head(torch.zeros(2, 3, 32)).shape[:2] == (2, 3)
