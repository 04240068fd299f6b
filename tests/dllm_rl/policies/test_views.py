"""Views: unbiased per row against enumeration of all masks, weights that sum to one, and what is never scored."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from scipy import stats

from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.flow import MAX_KAPPA, GeneralisedKL
from dllm_rl.records.types import Prompts, Rollouts, Views
from dllm_rl.training.update import generator as stream
from tests.examples import EOS, FILL, LETTERS, MASK, PAD, example, example_policy, example_rollouts

DRAWS = 3000
# What the flow family's source writes: all but MASK.
SOURCE = (PAD, EOS, FILL, *LETTERS)
# Letters and one FILL up to EOS; one column of tail.
ROW = (4, FILL, 6, 7, EOS, PAD)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_row(policy: BasePolicy, num_copies: int = 1, ids: tuple[int, ...] = ROW) -> Rollouts:
    """Copies of one row, so that a draw for each copy is an independent draw."""
    row = torch.tensor([ids])
    mask = (row != PAD) & (row != FILL)
    base = example_rollouts(example_policy(policy.family)).rows(torch.tensor([0]))
    base = replace(base, completion_ids=row, completion_mask=mask, trajectory=None)
    return base.rows(torch.zeros(num_copies, dtype=torch.long))


def estimates(policy: BasePolicy, rollouts: Rollouts, drawn: Views) -> torch.Tensor:
    with torch.no_grad():
        return (drawn.weight * policy.view_log_probs(rollouts, drawn)).sum((0, 2))


def hidden_view(policy: BasePolicy, rollouts: Rollouts, hidden: torch.Tensor) -> torch.Tensor:
    """Terms of one view with these columns hidden (and the tail)."""
    tail = ~policy.process.editable(rollouts)
    tokens = torch.where(hidden | tail, MASK, rollouts.completion_ids)
    score = hidden & rollouts.completion_mask
    one = Views(tokens=tokens[None], score=score[None], weight=score[None].float())
    with torch.no_grad():
        return policy.view_log_probs(rollouts, one)[0].sum(-1)


def exact_elbo(policy: BasePolicy, rollouts: Rollouts) -> float:
    """Sum over n of 1/(N+1) times the mean over all subsets of size n of (N+1)/n times the hidden terms."""
    members = policy.process.editable(rollouts)[0].nonzero()[:, 0].tolist()
    total = 0.0
    for size in range(1, len(members) + 1):
        subsets = list(itertools.combinations(members, size))
        for subset in subsets:
            hidden = torch.zeros_like(rollouts.completion_mask)
            hidden[0, list(subset)] = True
            total += float(hidden_view(policy, rollouts, hidden)) / size / len(subsets)
    return total


@pytest.mark.parametrize("num_draws", [1, 2])
@pytest.mark.parametrize("antithetic", [False, True])
def test_masked_elbo_is_unbiased_for_one_row(num_draws: int, antithetic: bool) -> None:
    policy = example_policy("masked", sharpness=3.0)
    rollouts = one_row(policy, DRAWS)
    drawn = policy.process.elbo(rollouts, generator(), num_draws=num_draws, antithetic=antithetic)
    given = estimates(policy, rollouts, drawn)
    error = float(given.mean()) - exact_elbo(policy, one_row(policy))
    assert abs(error) < 4 * float(given.std()) / math.sqrt(DRAWS)


@pytest.mark.parametrize("antithetic", [False, True])
def test_block_elbo_is_the_sum_over_blocks_and_unbiased(antithetic: bool) -> None:
    """Each block on its own, the others as the completion has them: hidden or not, they do not matter to its terms."""
    policy = example_policy("block", sharpness=3.0)
    row = one_row(policy, ids=(4, FILL, 6, 7, 5, EOS))
    wanted = 0.0
    for members in ([0, 1, 2, 3], [4, 5]):
        for size in range(1, len(members) + 1):
            subsets = list(itertools.combinations(members, size))
            for subset in subsets:
                hidden = torch.zeros_like(row.completion_mask)
                hidden[0, list(subset)] = True
                wanted += float(hidden_view(policy, row, hidden)) / size / len(subsets)
    rollouts = one_row(policy, DRAWS, ids=(4, FILL, 6, 7, 5, EOS))
    drawn = policy.process.elbo(rollouts, generator(), num_draws=1, antithetic=antithetic)
    given = estimates(policy, rollouts, drawn)
    assert abs(float(given.mean()) - wanted) < 4 * float(given.std()) / math.sqrt(DRAWS)


def test_noise_levels_of_blocks_are_independent() -> None:
    policy = example_policy("block")
    rollouts = one_row(policy, DRAWS, ids=(4, 5, 6, 7, 5, EOS))
    drawn = policy.process.elbo(rollouts, generator(), num_draws=1, antithetic=False)
    hidden = drawn.score[0]
    first, second = hidden[:, :4].sum(-1), hidden[:, 4:].sum(-1)
    counts = torch.bincount(first * 3 + second, minlength=15)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3, "each pair of counts is equally likely"


def test_masked_elbo_is_the_mean_over_all_orders_and_below_the_log_likelihood() -> None:
    ids = (4, 5, 6, 7, 4, EOS)
    policy = example_policy("masked", sharpness=4.0)
    row = one_row(policy, ids=ids)
    paths = torch.tensor([path_log_prob(policy, row, order) for order in itertools.permutations(range(6))])
    elbo = exact_elbo(policy, row)
    assert elbo == pytest.approx(float(paths.mean()), abs=1e-4)
    log_likelihood = float(paths.logsumexp(0)) - math.log(len(paths))
    assert elbo < log_likelihood - 0.1, "the gap must be large enough to see"


def path_log_prob(policy: BasePolicy, row: Rollouts, order: tuple[int, ...]) -> float:
    total, hidden = 0.0, torch.ones_like(row.completion_mask)
    for column in order:
        tokens = torch.where(hidden, MASK, row.completion_ids)
        score = torch.zeros_like(hidden)
        score[0, column] = True
        one = Views(tokens=tokens[None], score=score[None], weight=score[None].float())
        with torch.no_grad():
            total += float(policy.view_log_probs(row, one).sum())
        hidden[0, column] = False
    return total


@pytest.mark.parametrize("family", ["masked", "slot"])
def test_the_number_of_hidden_units_is_uniform(family: str) -> None:
    policy = example_policy(family)
    rollouts = one_row(policy, DRAWS)
    drawn = policy.process.elbo(rollouts, generator(1), num_draws=1, antithetic=False)
    units = 5 if family == "masked" else 3
    inside = policy.process.editable(rollouts)
    hidden = (drawn.tokens[0] == MASK) & inside
    counts = hidden.sum(-1) if family == "masked" else hidden[:, [0, 2, 4]].sum(-1)
    observed = torch.bincount(counts, minlength=units + 1)
    assert observed.numel() == units + 1
    assert stats.chisquare(observed.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("family", ["masked", "block", "slot"])
def test_weights_sum_to_one_per_scored_position(family: str, antithetic: bool) -> None:
    policy = example_policy(family)
    rollouts = one_row(policy, DRAWS)
    drawn = policy.process.elbo(rollouts, generator(2), num_draws=2, antithetic=antithetic)
    total = (drawn.weight * drawn.score).sum(0)
    error = (total.mean(0) - rollouts.completion_mask[0].float()).abs()
    assert bool((error <= 4 * total.std(0) / math.sqrt(DRAWS)).all())


@pytest.mark.parametrize("seed", range(3))
def test_a_pair_scores_each_position_once_and_two_stratified_pairs_beat_four_plain_views(seed: int) -> None:
    policy = example_policy("masked", seed=seed)
    rollouts = one_row(policy, 2 * DRAWS, ids=(4, 5, 6, 7, 4, EOS))
    pair = policy.process.elbo(rollouts, generator(), num_draws=1)
    assert torch.equal(pair.score.sum(0), rollouts.completion_mask.long())
    plain = policy.process.elbo(rollouts, generator(), num_draws=1, antithetic=False)
    of_four_plain = estimates(policy, rollouts, plain).var() / 4
    pairs = policy.process.elbo(rollouts, generator(), num_draws=2)
    assert estimates(policy, rollouts, pairs).var() < of_four_plain


@pytest.mark.parametrize("family", ["masked", "block", "slot", "flow"])
def test_tail_is_hidden_and_nothing_but_the_completion_mask_is_scored(family: str) -> None:
    item = example(family)
    rollouts, process = item.rollouts, item.policy.process
    tail = ~process.editable(rollouts)
    for drawn in (process.elbo(rollouts, generator()), process.one_step(rollouts, generator())):
        assert not bool((drawn.score & ~rollouts.completion_mask).any())
        seen = drawn.tokens[:, tail]
        assert bool((seen == MASK).all()) if family != "flow" else bool((seen != MASK).all())


def test_slots_are_hidden_whole_and_clean_slots_come_first() -> None:
    item = example("slot")
    rollouts, process = item.rollouts, item.policy.process
    drawn = process.elbo(rollouts, generator(), num_draws=4)
    inside = process.editable(rollouts)
    assert drawn.order is not None
    columns = torch.arange(6).expand_as(drawn.order)
    assert torch.equal(drawn.order.sort(-1).values, columns)
    for view, row in itertools.product(range(8), range(rollouts.num_rows)):
        masked = (drawn.tokens[view, row] == MASK) | ~inside[row]
        slots = masked.unflatten(0, (-1, 2))
        member = inside[row].unflatten(0, (-1, 2)).any(-1)
        is_hidden = slots.all(-1)
        assert bool((slots.any(-1) == is_hidden)[member].all() or not inside[row].all())
        fed = drawn.order[view, row].unflatten(0, (-1, 2))[:, 0] // 2
        hidden_in_order = fed[is_hidden[fed]]
        assert torch.equal(hidden_in_order, hidden_in_order.sort().values)
        flags = is_hidden[fed].tolist()
        assert flags == sorted(flags)


def test_flow_elbo_is_below_the_exact_log_likelihood_of_its_jump_process() -> None:
    """Two letters to write: exact probability by summing the process over a fine grid of all canvases."""
    policy = example_policy("flow", length=2, sharpness=2.0)
    rollouts = one_row(policy, 10_000, ids=(5, EOS))
    drawn = policy.process.elbo(rollouts, generator(), num_draws=1)
    given = estimates(policy, rollouts, drawn)
    mean, error = float(given.mean()), float(given.std()) / math.sqrt(len(given))
    exact = flow_log_likelihood(policy, one_row(policy, ids=(5, EOS)), num_steps=300)
    assert mean - 4 * error < exact


@pytest.mark.parametrize("antithetic", [False, True])
def test_flow_elbo_is_unbiased_against_enumeration(antithetic: bool) -> None:
    """Two positions: every canvas, weighted by its probability, on a fine grid of kappa."""
    policy = example_policy("flow", length=2, sharpness=0.5)
    row = one_row(policy, ids=(5, EOS))
    rollouts = one_row(policy, 40_000, ids=(5, EOS))
    drawn = policy.process.elbo(rollouts, generator(), num_draws=1, antithetic=antithetic)
    given = estimates(policy, rollouts, drawn)
    states = torch.tensor(list(itertools.product(SOURCE, repeat=2)))
    copies = row.rows(torch.zeros(len(states), dtype=torch.long))
    kappa = (torch.arange(500) + 0.5) / 500 * MAX_KAPPA
    score = torch.ones(500, *states.shape, dtype=torch.bool)
    grid = Views(
        tokens=states.expand(500, -1, -1),
        score=score,
        weight=score.float(),
        time=kappa[:, None].expand(500, len(states)),
        term=GeneralisedKL(),
    )
    with torch.no_grad():
        terms = policy.view_log_probs(copies, grid).sum(-1)
    is_clean = (states == row.completion_ids).float()
    probability = (kappa[:, None, None] * is_clean + (1 - kappa[:, None, None]) / len(SOURCE)).prod(-1)
    exact = float((probability * terms / (1 - kappa[:, None])).sum(1).mean() * MAX_KAPPA)
    assert abs(float(given.mean()) - exact) < 4 * float(given.std()) / math.sqrt(len(given))


def flow_log_likelihood(policy: BasePolicy, row: Rollouts, num_steps: int) -> float:
    """Forward equation of the jump process over all canvases of writable ids, up to MAX_KAPPA.

    The grid is even in -log(1 - kappa), in which every position jumps at rate 1.
    """
    states = torch.tensor(list(itertools.product(SOURCE, repeat=2)))
    index = {state: i for i, state in enumerate(map(tuple, states.tolist()))}
    mass = torch.full((len(states),), 1 / len(states), dtype=torch.float64)
    copies = row.rows(torch.zeros(len(states), dtype=torch.long))
    clock = torch.linspace(0, -math.log(1 - MAX_KAPPA), num_steps + 1, dtype=torch.float64)
    swaps = torch.tensor([[[index[(t, s[1])] for t in SOURCE], [index[(s[0], t)] for t in SOURCE]] for s in index])
    rate = float(clock[1])
    for now in (1 - (-clock[:-1]).exp()).tolist():
        prompts = Prompts(ids=copies.prompt_ids, mask=copies.prompt_mask, row_ids=torch.arange(len(states)))
        with torch.no_grad():
            p = policy.logits(prompts, states, time=torch.full((len(states),), now)).softmax(-1).double()
        flow = mass[:, None, None] * rate * p[:, :, list(SOURCE)]
        mass = (mass * (1 - 2 * rate)).index_add(0, swaps.flatten(), flow.flatten())
    return float(mass[index[tuple(row.completion_ids[0].tolist())]].log())


def test_flow_weights_and_noise() -> None:
    policy = example_policy("flow")
    rollouts = one_row(policy, 4 * DRAWS)
    drawn = policy.process.elbo(rollouts, generator(), num_draws=1)
    is_noise = drawn.tokens != rollouts.completion_ids
    share = (drawn.weight * is_noise * drawn.score).sum(0)[:, rollouts.completion_mask[0]]
    expected = MAX_KAPPA * (1 - 1 / len(SOURCE))
    assert bool(((share.mean(0) - expected).abs() < 4 * share.std(0) / math.sqrt(4 * DRAWS)).all())
    assert not bool((drawn.tokens == MASK).any())
    assert drawn.time is not None
    torch.testing.assert_close(drawn.time.sum(0), torch.full_like(drawn.time[0], MAX_KAPPA))


def test_flow_time_inverts_the_schedule() -> None:
    item = example("flow")
    process = replace(item.policy.process, schedule_power=2.0)
    linear = item.policy.process.elbo(item.rollouts, generator())
    square = process.elbo(item.rollouts, generator())
    assert linear.time is not None
    assert square.time is not None
    torch.testing.assert_close(square.time**2, linear.time)
    assert torch.equal(square.weight, linear.weight)


def test_autoregressive_views_are_all_exact() -> None:
    item = example("autoregressive")
    rollouts, process = item.rollouts, item.policy.process
    for drawn in (
        process.one_step(rollouts, generator()),
        process.elbo(rollouts, generator(), num_draws=3),
        process.replay(rollouts, generator(), num_steps=2),
    ):
        assert drawn.is_exact
        assert torch.equal(drawn.tokens[0], rollouts.completion_ids)
        assert torch.equal(drawn.score[0], rollouts.completion_mask)


@pytest.mark.parametrize("family", ["masked", "block", "slot", "flow"])
def test_all_steps_score_every_event_once(family: str) -> None:
    item = example(family)
    rollouts, process = item.rollouts, item.policy.process
    drawn = process.replay(rollouts, generator())
    times = drawn.score.sum(0)
    expected = rollouts.completion_mask.long() * (rollouts.trajectory.num_steps if family == "flow" else 1)
    assert torch.equal(times, expected)
    assert drawn.loss_weight is not None
    assert torch.equal(drawn.loss_weight, drawn.score.float())


@pytest.mark.parametrize("family", ["masked", "block", "slot", "flow"])
def test_sampled_steps_are_weighted_to_all_steps_on_average(family: str) -> None:
    item = example(family)
    rollouts, process = item.rollouts, item.policy.process
    copies = rollouts.rows(torch.zeros(DRAWS, dtype=torch.long))
    whole = process.replay(rollouts, generator())
    drawn = process.replay(copies, generator(), num_steps=2)
    assert drawn.num_views == 2
    assert drawn.loss_weight is not None
    total = drawn.loss_weight.sum(0)
    error = (total.mean(0) - whole.score.sum(0)[0]).abs()
    assert bool((error <= 4 * total.std(0) / math.sqrt(DRAWS) + 1e-6).all())
    steps = drawn.step
    assert steps is not None
    assert bool((steps[0] != steps[1]).all()), "without replacement"


def test_rows_with_fewer_steps_than_asked_use_all_of_theirs() -> None:
    item = example("masked")
    rollouts, process = item.rollouts, item.policy.process
    own = process.own_steps(rollouts)
    drawn = process.replay(rollouts, generator(), num_steps=3)
    used = drawn.score.any(-1).sum(0)
    assert torch.equal(used, own.sum(-1).clamp(max=3))
    assert len(used.unique()) > 1, "rows of different numbers of steps"


def test_merged_steps_are_the_canvas_before_the_first_of_them() -> None:
    item = example("masked")
    rollouts, process = item.rollouts, item.policy.process
    steps = torch.tensor([0, 2])[:, None].expand(2, rollouts.num_rows)
    drawn = process.replay_steps(rollouts, steps, torch.ones(2, rollouts.num_rows), span=2)
    assert torch.equal(drawn.score.sum(0), rollouts.completion_mask.long())
    commit = rollouts.trajectory.commit_step
    assert torch.equal(drawn.tokens[1] == MASK, (commit >= 2) | (commit < 0))


def test_prompt_tokens_are_hidden_only_where_there_is_a_mask() -> None:
    item = example("masked")
    drawn = item.policy.process.one_step(item.rollouts, generator(), prompt_mask_share=0.5)
    assert drawn.prompt_tokens is not None
    hidden = drawn.prompt_tokens[0] == MASK
    assert 0 < int(hidden.sum()) < int(item.rollouts.prompt_mask.sum())
    assert not bool((hidden & ~item.rollouts.prompt_mask).any())
    for family in ("flow", "autoregressive"):
        other = example(family)
        with pytest.raises(ConfigError, match=f"the {family} family has no"):
            other.policy.process.one_step(other.rollouts, generator(), prompt_mask_share=0.15)


def test_views_of_rows_are_rows_of_views() -> None:
    """Drawn once for the whole batch: a micro-batch is an index into it, not a new draw."""
    item = example("slot")
    drawn = item.policy.process.elbo(item.rollouts, generator())
    index = torch.tensor([3, 1])
    part = drawn.rows(index)
    assert torch.equal(part.tokens, drawn.tokens[:, index])
    assert torch.equal(part.weight, drawn.weight[:, index])


def test_hidden_prompt_tokens_do_not_depend_on_the_padding_of_the_batch() -> None:
    item = example("masked")
    pad = torch.nn.functional.pad
    wider = replace(
        item.rollouts,
        prompt_ids=pad(item.rollouts.prompt_ids, (4, 0), value=PAD),
        prompt_mask=pad(item.rollouts.prompt_mask, (4, 0)),
    )
    drawn = [
        item.policy.process.one_step(rollouts, generator(), prompt_mask_share=0.5).prompt_tokens
        for rollouts in (item.rollouts, wider)
    ]
    assert drawn[0] is not None and drawn[1] is not None
    assert torch.equal(drawn[0], drawn[1][..., 4:])


def test_views_follow_from_seed_step_and_inner_step() -> None:
    item = example("masked")
    drawn = [
        item.policy.process.elbo(item.rollouts, stream(0, "masks", step, inner, 0)).tokens
        for step, inner in ((3, 0), (3, 0), (3, 1), (4, 0))
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not any(torch.equal(drawn[0], other) for other in drawn[2:])
