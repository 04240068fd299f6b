"""The microscope is exact: its laws sum to one, are what the real sampler does, and judge surrogates right."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from dllm_rl import registry
from dllm_rl.policies.feed import Feed
from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Prompts, Rollouts, Views
from objectives.espo import ESPO
from samplers.rules.low_confidence import LowConfidenceSampler
from studies.exact.laws import RULES, Law, law
from studies.exact.policy import EnumerablePolicy, moved, trained_policy
from studies.exact.surrogates import Surrogate, compare, compare_path, estimate, left_out, surrogates

LENGTH, LETTERS = 4, 3
PLAIN, ONE_PAIR = "ELBO, num_draws=1", "ELBO, num_draws=1, antithetic"
TWO_PAIRS, EIGHT_PAIRS = "ELBO, num_draws=2, antithetic", "ELBO, num_draws=8, antithetic"


@functools.cache
def policy() -> EnumerablePolicy:
    return trained_policy(length=LENGTH, num_letters=LETTERS, seed=0)


@functools.cache
def law_of(rule: str, quota: int = 1) -> Law:
    return law(policy(), RULES[rule], quota=quota)


def surrogate(label: str) -> Surrogate:
    return next(item for item in surrogates(policy()) if item.label == label)


def test_every_objective_that_is_defined_here_has_a_row_or_a_reason() -> None:
    users = {name.split(" (")[0] for item in surrogates(policy()) for name in item.used_by.split(", ")}
    defined = {name for name, cls in registry.items("objective") if "masked" in registry.families_of(cls)}
    assert users | left_out().keys() == defined
    assert not users & left_out().keys()


def test_objectives_that_draw_equal_views_share_a_row() -> None:
    rows = {item.label: item.used_by for item in surrogates(policy())}
    assert {"espo", "gdsd", "stable_drl"} <= set(rows[TWO_PAIRS].split(", "))
    assert {"grpo", "gspo", "rloo", "wd1"} <= set(rows["one step"].split(", "))
    assert rows[EIGHT_PAIRS] == "espo (num_draws=8)"


def test_a_plug_in_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._REGISTRY, "objective", dict(registry._REGISTRY["objective"]))
    before = len(surrogates(policy()))

    @registry.register("objective", "three_pairs")
    @dataclass(frozen=True, slots=True, kw_only=True)
    class ThreePairs(ESPO):
        name: ClassVar[str] = "three_pairs"
        num_draws: int = 3

    @registry.register("objective", "first_half")
    @dataclass(frozen=True, slots=True, kw_only=True)
    class FirstHalf(ESPO):
        name: ClassVar[str] = "first_half"

        def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
            half = torch.arange(LENGTH) < LENGTH // 2
            hidden = process.units(rollouts)[None] & half
            return process.hide_units(rollouts, hidden, torch.ones(hidden.shape[:2]), generator)

    found = {item.used_by: item for item in surrogates(policy())}
    assert len(found) == before + 2
    assert found["three_pairs"].label == "ELBO, num_draws=3, antithetic"
    assert found["first_half"].label == "views of first_half"
    drawn = estimate(found["first_half"], policy(), policy(), num_draws=1, seed=0)
    assert bool((drawn.value < 0).all())
    assert not drawn.change.any()


@pytest.mark.parametrize("quota", [1, 2, 4])
@pytest.mark.parametrize("rule", RULES)
def test_each_law_is_one(rule: str, quota: int) -> None:
    found = law_of(rule, quota)
    assert float(found.log_prob.exp().sum()) == pytest.approx(1.0, abs=1e-6)
    assert len(found.log_prob) == LETTERS**LENGTH


@pytest.mark.parametrize("quota", [1, 2])
def test_the_confidence_law_is_that_of_the_real_sampler(quota: int) -> None:
    num = 20_000
    ids = torch.zeros(num, 1, dtype=torch.long)
    prompts = Prompts(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool), row_ids=torch.arange(num))
    drawn = LowConfidenceSampler(num_steps=LENGTH // quota).generate(policy(), prompts, seed=1)
    index = (drawn.ids * LETTERS ** torch.arange(LENGTH - 1, -1, -1)).sum(-1)
    counts = torch.bincount(index, minlength=LETTERS**LENGTH).double()
    expected = law_of("confidence", quota).log_prob.exp() * num
    is_common = expected > 5
    chi_square = float(((counts - expected).square() / expected)[is_common].sum())
    assert chi_square < int(is_common.sum()) + 4 * (2 * int(is_common.sum())) ** 0.5
    path = drawn.trajectory.log_probs.sum(-1).double()
    torch.testing.assert_close(path, law_of("confidence", quota).path_mean[index], atol=1e-4, rtol=1e-4)


def test_only_what_is_drawn_before_it_is_chosen_has_a_selection_gap() -> None:
    for rule in RULES:
        gap = law_of(rule).selection_gap
        assert abs(gap) < 1e-6 if rule != "drawn" else gap > 0.05, rule


def test_a_chosen_path_is_the_likelihood_and_a_random_one_a_bound() -> None:
    for rule in ("left to right", "confidence", "entropy", "margin"):
        assert torch.allclose(law_of(rule).path_mean, law_of(rule).log_prob)
    random, weight = law_of("random"), law_of("random").log_prob.exp()
    assert bool((weight * (random.log_prob - random.path_mean)).sum() < 0.5)
    assert float(random.path_var.max()) > 1e-3


def test_the_elbo_is_unbiased_for_the_mean_over_orders_and_less_noisy_in_pairs() -> None:
    other = moved(policy(), size=0.02, seed=0)
    rows = {}
    for label in (PLAIN, ONE_PAIR, EIGHT_PAIRS):
        drawn = estimate(surrogate(label), policy(), other, num_draws=400, seed=0)
        rows[label] = compare(surrogate(label), drawn, law_of("random"), law(other, RULES["random"]), seed=0)
    bound = float(((uniform_order_elbo() - law_of("random").log_prob) * law_of("random").log_prob.exp()).sum())
    assert rows[EIGHT_PAIRS].bias == pytest.approx(bound, abs=0.02)
    assert rows[EIGHT_PAIRS].deviation < rows[ONE_PAIR].deviation < rows[PLAIN].deviation


def uniform_order_elbo() -> torch.Tensor:
    """Mean over all orders of the path's log-probability, by the orders themselves."""
    import itertools

    ids = policy().completions()
    rows = policy().rollouts(ids)
    total = torch.zeros(len(ids), dtype=torch.float64)
    orders = list(itertools.permutations(range(LENGTH)))
    for order in orders:
        canvas = torch.full_like(ids, policy().mask_id or 0)
        for column in order:
            feed = Feed(prompt_ids=rows.prompt_ids, prompt_mask=rows.prompt_mask, canvas=canvas)
            log_p = policy().score(feed).double().log_softmax(-1)
            total += log_p[torch.arange(len(ids)), column, ids[:, column]]
            canvas[:, column] = ids[:, column]
    return total / len(orders)


def test_the_change_of_a_path_is_that_of_its_recorded_canvases() -> None:
    """With a fixed order it is the true change; where the moved policy would choose another order it is not."""
    errors = {}
    other = moved(policy(), size=0.5, seed=0)
    for rule in ("left to right", "confidence"):
        truth, after = law(policy(), RULES[rule], other=other), law(other, RULES[rule])
        errors[rule] = float((truth.path_change - (after.log_prob - truth.log_prob)).abs().max())
    assert errors["left to right"] < 1e-6
    assert errors["confidence"] > 1e-3


def test_the_exact_surrogate_is_found_exact_and_a_wrong_one_is_not() -> None:
    other = moved(policy(), size=0.02, seed=0)
    truth, after = law(policy(), RULES["left to right"], other=other), law(other, RULES["left to right"])
    drawn = estimate(surrogate("left to right"), policy(), other, num_draws=1, seed=0)
    row = compare(surrogate("left to right"), drawn, truth, after, seed=0)
    assert (row.bias, row.distortion, row.deviation) == pytest.approx((0.0, 0.0, 0.0), abs=1e-4)
    assert (row.rank, row.change) == pytest.approx((1.0, 1.0), abs=1e-3)
    path = compare_path(surrogate("recorded path"), truth, after, seed=0)
    assert (path.bias, path.change) == pytest.approx((0.0, 1.0), abs=1e-4)
    one_step = estimate(surrogate("one step"), policy(), other, num_draws=1, seed=0)
    assert compare(surrogate("one step"), one_step, truth, after, seed=0).distortion > 0.1
