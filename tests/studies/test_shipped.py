"""Likelihoods by forced paths are those of the sampler: exact by enumeration of its paths, and within their errors."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.types import Prompts
from studies.shipped.__main__ import table
from studies.shipped.forced import Likelihood, likelihood
from studies.shipped.surrogates import SURROGATES, Found, Judged, change_errors, examine, judge, moved
from tests.objectives.paths import Paths, enumerated, small_policy

# Family, options, and steps in which columns have coins of their own.
RULES: dict[str, tuple[str, dict[str, Any], int]] = {
    "low_confidence": ("masked", {"num_steps": 2}, 0),
    "threshold": ("block", {"threshold": 0.4}, 0),
    "soft_threshold": ("masked", {"threshold": 0.4, "spread": 0.7}, 2),
    "slots": ("slot", {"slot_threshold": 0.3, "token_threshold": 0.3}, 0),
}


@functools.cache
def paths(rule: str) -> Paths:
    family, options, num_coin_steps = RULES[rule]
    length = None if family == "slot" else 3
    sampler = registry.build("sampler", rule, options)
    found = enumerated(small_policy(family, length=length), sampler, num_coin_steps=num_coin_steps)
    if not num_coin_steps:
        return found
    from tests.objectives.test_positions import path_log_probs

    return replace(found, log_probs=path_log_probs(found, 3))


def truths(found: Paths) -> tuple[Tensor, Tensor]:
    """Every text once, and its probability: the sum over the paths that lead to it."""
    texts, index = found.completions.ids.unique(dim=0, return_inverse=True)
    total = torch.zeros(len(texts), dtype=torch.float64).index_add(0, index, found.log_probs.detach().exp())
    return texts, total


def policy_of(rule: str) -> BasePolicy:
    """In float64, but for slots, whose driver keeps confidences in float32."""
    policy = copy.copy(paths(rule).policy)
    if rule == "slots":
        policy.model = copy.deepcopy(policy.model).float()
    return policy


def prompts_of(found: Paths, num: int) -> Prompts:
    given = found.rollouts
    return Prompts(ids=given.prompt_ids[:num], mask=given.prompt_mask[:num], row_ids=torch.arange(num))


@pytest.mark.parametrize("rule", RULES)
def test_the_mean_over_forced_paths_is_the_probability_of_the_text(rule: str) -> None:
    found = paths(rule)
    texts, expected = truths(found)
    assert float(expected.sum()) == pytest.approx(1.0, abs=1e-8)
    sampler = registry.build("sampler", rule, RULES[rule][1])
    given = likelihood(policy_of(rule), sampler, prompts_of(found, len(texts)), texts, num_paths=200, seed=0)
    gap = (given.log_prob.exp() / expected - 1).abs()
    assert bool((gap <= 5 * given.error + 1e-5).all()), gap
    if rule != "slots":
        assert bool((given.error > 0).any()), "texts that end early leave columns to chance"


def test_a_text_that_fills_the_canvas_has_one_path_under_a_rule_without_noise() -> None:
    found = paths("low_confidence")
    texts, expected = truths(found)
    is_full = ~(texts[:, :-1] == found.policy.canvas.eos_id).any(1)
    sampler = registry.build("sampler", "low_confidence", RULES["low_confidence"][1])
    given = likelihood(found.policy, sampler, prompts_of(found, len(texts)), texts, num_paths=2, seed=1)
    torch.testing.assert_close(given.log_prob[is_full].exp(), expected[is_full], rtol=1e-6, atol=1e-9)
    assert bool((given.error[is_full] < 1e-9).all())


def test_errors_are_of_the_mean_and_cancel_in_changes() -> None:
    weights = torch.tensor([[0.1, 0.3], [0.3, 0.3], [0.2, 0.3]]).double().log()
    one = Likelihood.of(weights)
    torch.testing.assert_close(one.log_prob.exp(), torch.tensor([0.2, 0.3]).double())
    torch.testing.assert_close(one.error, torch.tensor([0.5 / 3**0.5, 0.0]).double())
    torch.testing.assert_close(change_errors(one, Likelihood.of(weights + 0.4)), torch.zeros(2).double())


def test_effective_paths_are_fewer_where_one_outweighs_the_others() -> None:
    weights = torch.tensor([[0.2, 0.0097], [0.2, 0.0001], [0.2, 0.0001], [0.2, 0.0001]]).double().log()
    expected = torch.tensor([4.0, 1.0625]).double()
    torch.testing.assert_close(Likelihood.of(weights).effective, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("name", "options"),
    [("remdm", {}), ("smc", {}), ("flow_exact", {}), ("ar", {}), ("threshold", {"grammar": True})],
)
def test_samplers_whose_draws_cannot_be_told_are_refused(name: str, options: dict[str, Any]) -> None:
    found = paths("low_confidence")
    sampler = registry.build("sampler", name, options)
    with pytest.raises(ConfigError, match=f"sampler '{name}' was given; expected is one of the families"):
        likelihood(found.policy, sampler, prompts_of(found, 1), found.completions.ids[:1], num_paths=2, seed=0)


def test_where_the_truth_is_uncertain_nothing_is_said_of_what_follows_it() -> None:
    judged = {name: Judged(bias=0.1, change=0.9, low=0.8, high=0.95) for name in SURROGATES}
    sizes = {"num_texts": 24, "num_paths": 8, "log_prob": -5.0, "error": 0.4, "effective": 1.3, "nfe": 8.0}
    known, unknown = (Found(**sizes, change_spread=1.0, change_error=error, surrogates=judged) for error in (0.4, 0.6))
    lines = table({"masked | threshold .97 | 1.0": known, "masked | random, 8 steps | 1.0": unknown})
    assert lines[-2].count("0.90 [0.80, 0.95] (+0.100)") == len(judged)
    assert lines[-1].count("truth too uncertain (+0.100)") == len(judged)
    assert "| masked | random, 8 steps | 1.0 | 24 | 8.0 | -5.00 | 0.40 | 8 | 1.3 | 1.000 | 0.600 |" in lines


def test_a_surrogate_that_follows_the_truth_has_correlation_one() -> None:
    true = torch.randn(20, generator=torch.Generator().manual_seed(0)).double()
    follows = judge(torch.full((20,), -0.1), 2 * true + 1, true)
    assert follows.change == pytest.approx(1.0) and follows.bias == pytest.approx(-0.1)
    other = judge(torch.zeros(20), torch.randn(20, generator=torch.Generator().manual_seed(1)).double(), true)
    assert other.low < other.change < other.high < 0.9


def test_every_surrogate_is_judged_and_the_recorded_path_of_a_rule_without_noise_is_the_truth() -> None:
    found = paths("low_confidence")
    sampler = registry.build("sampler", "low_confidence", {"num_steps": 3})
    other = moved(found.policy, size=0.02, seed=0)
    given = examine(found.policy, other, sampler, prompts_of(found, 24), num_paths=64, seed=5)
    assert set(given.surrogates) == set(SURROGATES)
    assert given.surrogates["recorded path"].change > 0.9
    assert given.nfe <= 3 and given.error < 0.5
