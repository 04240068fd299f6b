"""ELBO views at the nodes of a quadrature: exact up to 2 n units, beyond that a small bias, and less variance."""

from __future__ import annotations

import math

import pytest
import torch

from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.flow import MAX_KAPPA
from tests.dllm_rl.policies.test_views import DRAWS, estimates, exact_elbo, generator, hidden_view, one_row
from tests.examples import EOS, FILL, PAD, example, example_policy

NODES = {
    1: [(0.5, 1.0)],
    2: [((3 - 3**0.5) / 6, 0.5), ((3 + 3**0.5) / 6, 0.5)],
    3: [(0.5 - 0.15**0.5, 5 / 18), (0.5, 8 / 18), (0.5 + 0.15**0.5, 5 / 18)],
}
FOUR, FIVE = (4, FILL, 6, EOS, PAD, PAD), (4, FILL, 6, 7, EOS, PAD)


def expected(policy: BasePolicy, ids: tuple[int, ...], num_nodes: int) -> float:
    """Of the estimate, by enumeration: every mask with its Bernoulli probability at every node."""
    row = one_row(policy, ids=ids)
    columns = policy.process.editable(row)[0].nonzero()[:, 0].tolist()
    total = 0.0
    for code in range(1, 2 ** len(columns)):
        subset = [column for bit, column in enumerate(columns) if code >> bit & 1]
        hidden = torch.zeros_like(row.completion_mask)
        hidden[0, subset] = True
        term, size, rest = float(hidden_view(policy, row, hidden)), len(subset), len(columns) - len(subset)
        total += sum(share / t * t**size * (1 - t) ** rest * term for t, share in NODES[num_nodes])
    return total


@pytest.mark.parametrize(("ids", "num_nodes"), [(FOUR, 2), (FOUR, 3), (FIVE, 3)])
def test_it_is_exact_for_at_most_twice_as_many_columns_as_nodes(ids: tuple[int, ...], num_nodes: int) -> None:
    policy = example_policy("masked", sharpness=3.0)
    assert expected(policy, ids, num_nodes) == pytest.approx(exact_elbo(policy, one_row(policy, ids=ids)), abs=1e-4)


def test_beyond_it_has_a_bias_that_falls_with_the_number_of_nodes() -> None:
    policy = example_policy("masked", sharpness=4.0)
    truth = exact_elbo(policy, one_row(policy, ids=FIVE))
    bias = {num: abs(expected(policy, FIVE, num) - truth) for num in (1, 2)}
    assert 1e-3 < bias[2] < bias[1], "large enough to see"
    assert bias[2] < 0.05 * abs(truth)


@pytest.mark.parametrize("num_nodes", [1, 2, 3])
def test_what_is_drawn_has_that_expectation(num_nodes: int) -> None:
    policy = example_policy("masked", sharpness=3.0)
    rollouts = one_row(policy, DRAWS, ids=FIVE)
    drawn = policy.process.quadrature(rollouts, generator(), num_nodes=num_nodes)
    given = estimates(policy, rollouts, drawn)
    assert abs(float(given.mean()) - expected(policy, FIVE, num_nodes)) < 4 * float(given.std()) / math.sqrt(DRAWS)


@pytest.mark.parametrize("num_nodes", [2, 3, 4])
@pytest.mark.parametrize("family", ["masked", "slot"])
def test_nodes_come_in_pairs_and_every_scored_position_has_expected_weight_one(family: str, num_nodes: int) -> None:
    policy = example_policy(family)
    rollouts = one_row(policy, DRAWS)
    drawn = policy.process.quadrature(rollouts, generator(1), num_nodes=num_nodes)
    assert drawn.num_views == num_nodes + num_nodes % 2
    for first in range(0, drawn.num_views, 2):
        assert torch.equal(drawn.score[first].long() + drawn.score[first + 1].long(), rollouts.completion_mask.long())
    total = (drawn.weight * drawn.score).sum(0)
    error = (total.mean(0) - rollouts.completion_mask[0].float()).abs()
    assert bool((error <= 4 * total.std(0) / math.sqrt(DRAWS) + 1e-6).all())


@pytest.mark.parametrize("seed", range(3))
def test_on_many_columns_a_pair_of_nodes_varies_less_than_a_pair_at_a_random_level(seed: int) -> None:
    policy = example_policy("masked", length=24, seed=seed)
    rollouts = one_row(policy, DRAWS, ids=(*((4, 5, 6, 7) * 6)[:23], EOS))
    nodes = policy.process.quadrature(rollouts, generator())
    pair = policy.process.elbo(rollouts, generator(), num_draws=1)
    assert estimates(policy, rollouts, nodes).var() < estimates(policy, rollouts, pair).var()


def test_flow_takes_the_nodes_of_its_own_range() -> None:
    policy = example_policy("flow")
    rollouts = one_row(policy, 4 * DRAWS)
    drawn = policy.process.quadrature(rollouts, generator())
    assert drawn.time is not None
    low, high = (MAX_KAPPA * t for t, _ in NODES[2])
    torch.testing.assert_close(drawn.time[:, 0], torch.tensor([low, high]))
    is_noise = drawn.tokens != rollouts.completion_ids
    share = (drawn.weight * is_noise * drawn.score).sum(0)[:, rollouts.completion_mask[0]]
    # Weight times the chance of noise is w MAX_KAPPA at each node, and one draw in seven hits the clean token.
    assert bool(((share.mean(0) - MAX_KAPPA * 6 / 7).abs() < 4 * share.std(0) / math.sqrt(4 * DRAWS)).all())


def test_autoregressive_is_exact() -> None:
    item = example("autoregressive")
    assert item.policy.process.quadrature(item.rollouts, generator()).is_exact
