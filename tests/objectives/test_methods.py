"""What each method promises beyond the common suite: relations between methods, bounds, and unbiased step sampling."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_rl import registry
from dllm_rl.records.events import Kind
from dllm_rl.records.types import Answers, Prompts, Rollouts, Views
from dllm_rl.testing.policies import sampled
from objectives import lengths
from objectives.mdpo import temporal_rewards
from objectives.spg import lower_bound, one_block, upper_bound
from tests.examples import example
from tests.objectives.losses import loss_of

FLAT = {"beta": 0.0, "advantage": "centred", "clip_low": 0.2, "clip_high": 0.2}


def make(name: str, **options: Any) -> Any:
    return registry.get("objective", name)(**options)


def draw(
    objective: Any, family: str, rollouts: Rollouts | None = None, seed: int = 0
) -> tuple[Rollouts, Views, Tensor]:
    """Rollouts, views and scores of the toy of a family."""
    item = example(family)
    rollouts = item.rollouts if rollouts is None else rollouts
    views = objective.views(rollouts, item.policy.process, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return rollouts, views, item.policy.view_log_probs(rollouts, views)


def scored_again(family: str, rollouts: Rollouts, views: Views) -> Tensor:
    """Scores of the same views from another forward, without gradient."""
    with torch.no_grad():
        return example(family).policy.view_log_probs(rollouts, views)


def moved(views: Views, new: Tensor, size: float = 0.5) -> Tensor:
    return new + size * torch.randn(new.shape, generator=torch.Generator().manual_seed(5)) * views.score


def gradient(objective: Any, rollouts: Rollouts, views: Views, new: Tensor, old: Tensor) -> Tensor:
    leaf = new.clone().requires_grad_()
    loss_of(objective, rollouts, views, leaf, old).value.backward()
    assert leaf.grad is not None
    return leaf.grad


def same(one: Any, two: Any, family: str, *, on_policy: bool = False) -> None:
    rollouts, views, new = draw(one, family)
    _, other_views, _ = draw(two, family)
    old = new if on_policy else moved(views, new)
    assert torch.equal(views.tokens, other_views.tokens)
    first, second = gradient(one, rollouts, views, new, old), gradient(two, rollouts, other_views, new, old)
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-7)
    assert bool((first != 0).any())


def test_on_autoregressive_all_surrogates_are_the_exact_likelihood() -> None:
    same(make("cj_grpo", **FLAT, num_steps=None), make("grpo", **FLAT), "autoregressive")
    same(make("espo", **FLAT), make("gspo", **FLAT), "autoregressive")
    for name in ("ar_surrogate_grpo", "causal_denoising_grpo", "just_grpo", "tracerl"):
        same(make(name, **FLAT), make("grpo", **FLAT), "autoregressive")


def test_on_autoregressive_and_on_policy_ratio_levels_do_not_differ() -> None:
    grpo = make("grpo", **FLAT)
    for name in ("gspo", "espo", "cj_grpo"):
        same(make(name, **FLAT), grpo, "autoregressive", on_policy=True)
    same(make("advantage_weighted_denoising", beta=0.0, advantage="centred"), grpo, "autoregressive", on_policy=True)


@pytest.mark.parametrize("family", ["autoregressive", "masked", "block", "slot", "flow"])
def test_on_policy_cj_grpo_is_flow_grpo_and_gspo_is_grpo(family: str) -> None:
    plain = {"beta": 0.0, "advantage": "centred"}
    same(make("cj_grpo", **plain), make("flow_grpo", **plain), family, on_policy=True)
    same(make("gspo", **FLAT), make("grpo", **FLAT), family, on_policy=True)
    same(make("cispo", advantage="normalised"), make("dapo"), family, on_policy=True)


@pytest.mark.parametrize("family", ["autoregressive", "masked", "block", "slot", "flow"])
def test_with_one_token_the_ratio_levels_coincide(family: str) -> None:
    item = example(family)
    mask = torch.zeros_like(item.rollouts.completion_mask)
    mask[:, 0] = True
    rollouts = replace(item.rollouts, completion_mask=mask)
    grpo = make("grpo", **FLAT)
    _, views, new = draw(grpo, family, rollouts)
    old = moved(views, new)
    expected = gradient(grpo, rollouts, views, new, old)
    for name in ("gspo", "rloo"):
        torch.testing.assert_close(gradient(make(name, **FLAT), rollouts, views, new, old), expected)


def test_dr_grpo_is_grpo_times_a_constant_at_equal_lengths() -> None:
    item = example("masked")
    mask = torch.zeros_like(item.rollouts.completion_mask)
    mask[:, :3] = True
    ids = torch.where(mask, item.rollouts.completion_ids.clamp(min=4), 0)
    rollouts = replace(item.rollouts, completion_ids=ids, completion_mask=mask)
    one, two = make("grpo", **FLAT), make("dr_grpo", **FLAT)
    _, views, new = draw(one, "masked", rollouts)
    old = moved(views, new)
    torch.testing.assert_close(
        gradient(two, rollouts, views, new, old) * 6 / 3, gradient(one, rollouts, views, new, old)
    )


@pytest.mark.parametrize("family", ["masked", "block", "slot"])
def test_tracerl_without_merging_is_cj_grpo_on_all_steps(family: str) -> None:
    one = make("cj_grpo", num_steps=None, **FLAT)
    two = make("tracerl", shrink=1, **FLAT)
    rollouts, views, new = draw(one, family)
    _, all_steps, other = draw(two, family)
    shift = torch.rand(rollouts.completion_mask.shape, generator=torch.Generator().manual_seed(1)) - 0.5
    first = loss_of(one, rollouts, views, new, new + shift * views.score)
    second = loss_of(two, rollouts, all_steps, other, other + shift * all_steps.score)
    torch.testing.assert_close(first.value, second.value)


@pytest.mark.parametrize("name", ["cj_grpo", "flow_grpo", "agrpo", "agrpo_entropy", "just_grpo"])
def test_sampled_steps_estimate_the_loss_of_all_steps(name: str) -> None:
    """The mean of the loss over draws is the loss on all steps, within 4 standard errors."""
    item = example("masked")
    events = item.rollouts.trajectory.events
    entropy = torch.rand(len(events.step), generator=torch.Generator().manual_seed(3))
    trajectory = replace(item.rollouts.trajectory, events=replace(events, entropy=entropy))
    rollouts = replace(item.rollouts, trajectory=trajectory)
    extra = {"steps_by": "entropy"} if name == "agrpo_entropy" else {}
    base = name.removesuffix("_entropy")
    whole = make("just_grpo" if base == "just_grpo" else "cj_grpo", beta=0.0, advantage="centred", num_steps=None)
    sampled = make(base, beta=0.0, advantage="centred", num_steps=2, **extra)
    reference = make(base, beta=0.0, advantage="centred", num_steps=None) if base == "flow_grpo" else whole
    target = value_of(reference, item.policy, rollouts, 0)
    draws = torch.tensor([value_of(sampled, item.policy, rollouts, seed) for seed in range(200)])
    assert draws.std() > 0
    assert abs(float(draws.mean()) - target) < 4 * float(draws.std()) / math.sqrt(len(draws))


def value_of(objective: Any, policy: Any, rollouts: Rollouts, seed: int) -> float:
    """The loss against old scores that differ by a fixed function of the token and its context."""
    views = objective.views(rollouts, policy.process, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        new = policy.view_log_probs(rollouts, views)
    old = new * 0.9
    return float(loss_of(objective, rollouts, views, new, old).value)


def test_just_grpo_scores_at_the_temperature_of_the_sampler() -> None:
    policy, rollouts = sampled("masked")
    rollouts = replace(rollouts, temperature=0.5)
    views = make("just_grpo").views(rollouts, policy.process, torch.Generator().manual_seed(0))
    prompts = Prompts(ids=rollouts.prompt_ids, mask=rollouts.prompt_mask, row_ids=torch.arange(rollouts.num_rows))
    with torch.no_grad():
        logits = policy.logits(prompts, views.tokens[0])
        given = policy.view_log_probs(rollouts, views)[0]
    expected = (logits / 0.5).log_softmax(-1).gather(-1, rollouts.completion_ids[..., None])[..., 0]
    torch.testing.assert_close(given, torch.where(views.score[0], expected, 0.0))


@pytest.mark.parametrize("family", ["masked", "block", "slot"])
@pytest.mark.parametrize("exact_scale", [True, False])
def test_coupled_weights_sum_to_one_and_upstreams_to_one_and_a_half(family: str, exact_scale: bool) -> None:
    item = example(family)
    rollouts = item.rollouts.rows(torch.zeros(4000, dtype=torch.long))
    objective = make("coupled_grpo", exact_scale=exact_scale)
    views = objective.views(rollouts, item.policy.process, torch.Generator().manual_seed(0))
    assert torch.equal(views.score.sum(0), 2 * rollouts.completion_mask.long()), "each token in two views"
    total = views.weight.sum(0)[:, rollouts.completion_mask[0]]
    error = (total.mean(0) - (1.0 if exact_scale else 1.5)).abs()
    assert bool((error < 4 * total.std(0) / math.sqrt(4000)).all())


def test_unigrpo_hides_a_uniform_share_and_at_least_one() -> None:
    item = example("masked")
    rollouts = item.rollouts.rows(torch.zeros(4000, dtype=torch.long))
    views = make("unigrpo").views(rollouts, item.policy.process, torch.Generator().manual_seed(0))
    hidden = (views.tokens[0] == 2).sum(-1)
    assert int(hidden.min()) >= 1
    shares = torch.bincount(hidden, minlength=7)[2:].float() / 4000
    assert bool(((shares - 1 / 7).abs() < 0.03).all()), "a uniform level hides each number of tokens equally often"


def test_wd1_weights_sum_to_zero_over_each_group_and_follow_the_reward() -> None:
    rollouts = example("masked").rollouts
    weights = make("wd1").advantages(rollouts)
    for group in rollouts.group_ids.unique():
        rows = (rollouts.group_ids == group) & rollouts.valid
        assert float(weights[rows].sum()) == pytest.approx(0, abs=1e-6)
        order = rollouts.rewards[rows].argsort()
        assert torch.equal(weights[rows][order], weights[rows].sort().values)


@pytest.mark.parametrize("num_hidden", [1, 2, 4, 6])
def test_spg_upper_bound_is_above_the_lower_one(num_hidden: int) -> None:
    """U >= E where both average over every mask of one size."""
    item = example("masked")
    row = item.rollouts.rows(torch.tensor([0]))
    row = replace(row, completion_mask=torch.ones_like(row.completion_mask))
    columns = torch.tensor(list(itertools.combinations(range(6), num_hidden)))
    hidden = torch.zeros(len(columns), 6, dtype=torch.bool).scatter_(1, columns, True)[:, None]
    weight = torch.full((len(columns), 1), 6 / num_hidden)
    views = item.policy.process.hide_units(row, hidden, weight, torch.Generator())
    with torch.no_grad():
        log_p = item.policy.view_log_probs(row, views)
    for power in (1.0, 1.5, 3.0):
        assert float(upper_bound(views, log_p, power)) > float(lower_bound(views, log_p)) - 1e-6


def test_bgpo_touches_its_target_at_the_old_weights_and_stays_below_it() -> None:
    objective = make("bgpo", clip_low=0.99, clip_high=1e6, ceiling=1e6, num_draws=4)
    rollouts, views, new = draw(objective, "masked")
    advantages = objective.advantages(rollouts)
    for size in (0.0, 0.05, 0.5, 3.0):
        old = moved(views, new, size)
        value = loss_of(objective, rollouts, views, new, old).value
        delta = (views.weight * (new - old)).sum(-1) / lengths(rollouts)
        target = -(delta.mean(0).exp() * advantages * rollouts.valid).sum() / rollouts.totals.rows
        assert float(value) >= float(target) - 1e-6, "a minorant of the gain is a majorant of the loss"
        if size == 0.0:
            assert float(value) == pytest.approx(float(target), abs=1e-7)


def test_bgpo_is_finite_where_the_linear_gain_is_negative() -> None:
    objective = make("bgpo", num_draws=2)
    rollouts, views, new = draw(objective, "masked")
    old = new + 30.0 * views.score
    given = gradient(objective, rollouts, views, new, old)
    assert bool(given.isfinite().all())
    assert bool((given != 0).any()), "completions with A >= 0 are pulled back"


def test_cispo_keeps_the_gradient_of_every_token_and_caps_its_weight() -> None:
    objective = make("cispo", advantage="centred")
    rollouts, views, new = draw(objective, "autoregressive")
    far = gradient(objective, rollouts, views, new, new - 3.0 * views.score)
    near = gradient(objective, rollouts, views, new, new)
    torch.testing.assert_close(far, 5.0 * near)


def test_kl_cov_penalises_the_tokens_of_largest_covariance_of_each_group_alone() -> None:
    rollouts, views, new = draw(make("kl_cov"), "autoregressive")
    old = moved(views, new)
    plain, one, all_of_them = (
        gradient(make("kl_cov", share=share, weight=weight), rollouts, views, new, old)
        for share, weight in ((1e-6, 0.0), (1e-6, 1.0), (1.0, 1.0))
    )
    is_scored = (views.score & rollouts.valid[:, None])[0]
    advantages = make("kl_cov").advantages(rollouts)[:, None].expand_as(rollouts.completion_mask)
    expected, positive = torch.zeros_like(is_scored), torch.zeros_like(is_scored)
    for group in rollouts.group_ids.unique():
        own = is_scored & (rollouts.group_ids == group)[:, None]
        spread = [values - values[own].mean() for values in (new[0], advantages)]
        covariance = (spread[0] * spread[1]).masked_fill(~own, -torch.inf)
        positive |= covariance > 0
        expected.flatten()[int(covariance.argmax())] = bool(covariance.max() > 0)
    assert expected.any() and torch.equal((one != plain)[0], expected)
    assert torch.equal((all_of_them != plain)[0], positive)
    # The pull is towards the policy that sampled.
    where = one != plain
    step = (one - plain)[where] * rollouts.totals.tokens
    torch.testing.assert_close(step, (new - old)[where])


def test_stable_drl_bounds_the_influence_of_a_wild_row() -> None:
    objective = make("stable_drl", advantage="centred")
    rollouts, views, new = draw(objective, "masked")
    calm = gradient(objective, rollouts, views, new, new)
    wild_row = int(objective.advantages(rollouts).abs().argmax())
    old = new.clone()
    old[:, wild_row] -= 5.0 * views.score[:, wild_row]
    wild = gradient(objective, rollouts, views, new, old)
    assert float(wild[:, wild_row].abs().max()) <= 1.2 * float(calm[:, wild_row].abs().max())


def test_gdsd_pulls_with_twice_the_advantage_at_the_old_weights() -> None:
    objective = make("gdsd", scale=0.7)
    rollouts, views, new = draw(objective, "flow")
    given = gradient(objective, rollouts, views, new, new)
    pull = -2 * 0.7 * objective.advantages(rollouts) / lengths(rollouts) / rollouts.totals.rows
    torch.testing.assert_close(given, pull[:, None] * views.weight)


@pytest.mark.parametrize("family", ["masked", "block", "slot", "flow"])
def test_shared_views_leave_no_noise_in_the_ratio_and_unshared_ones_do(family: str) -> None:
    """Standard deviation of the ratio at the weights that sampled: 0, against more than a tenth."""
    shared, unshared = make("espo", num_draws=1, beta=0.0), make("espo_unshared", num_draws=1)
    for objective, expects_noise in ((shared, False), (unshared, True)):
        rollouts, views, new = draw(objective, family)
        metrics = loss_of(objective, rollouts, views, new, new).metrics
        assert (metrics["ratio_dev"] > 0.1) is expects_noise
        assert (metrics["ratio/max"] == metrics["ratio/min"] == 1.0) is not expects_noise


def test_negative_control_reads_new_and_old_on_different_views() -> None:
    objective = make("espo_unshared")
    rollouts, views, new = draw(objective, "masked")
    given = gradient(objective, rollouts, views, new, new)
    half = views.num_views // 2
    assert bool((given[half:] == 0).all())
    assert not torch.equal(views.tokens[:half], views.tokens[half:])


def test_tokens_of_fill_and_of_the_tail_have_no_weight_in_any_objective() -> None:
    """A completion of FILL around one letter counts as one letter: N is 1."""
    item = example("masked")
    ids = torch.tensor([[3, 3, 5, 1, 0, 0]]).repeat(12, 1)
    mask = (ids == 5) | (ids == 1)
    rollouts = replace(item.rollouts, completion_ids=ids, completion_mask=mask, trajectory=None)
    rollouts = replace(rollouts, totals=Rollouts.count_totals(rollouts.valid, rollouts.group_ids, mask))
    for name in ("grpo", "gspo", "espo", "coupled_grpo"):
        objective = make(name, **FLAT)
        _, views, new = draw(objective, "masked", rollouts)
        given = gradient(objective, rollouts, views, new, new)
        assert bool((given[:, ~mask] == 0).all())


@pytest.mark.parametrize("family", ["masked", "slot"])
def test_spg_block_by_block_keeps_what_is_before_and_hides_what_is_behind(family: str) -> None:
    """Six columns in blocks of two: scored are hidden tokens of one block, the same for all levels of a row."""
    item = example(family)
    ids = torch.tensor([[4, 5, 6, 7, 4, 5]]).repeat(3000, 1)
    row = item.rollouts.rows(torch.zeros(3000, dtype=torch.long))
    rollouts = replace(row, completion_ids=ids, completion_mask=torch.ones_like(ids, dtype=torch.bool))
    size = 2 if family == "masked" else 1
    objective = make("spg", block_size=size, num_levels=3)
    views = objective.views(rollouts, item.policy.process, torch.Generator().manual_seed(0))
    block = torch.arange(6) // 2
    hidden = views.tokens == 2
    touched = views.score.any(0).unflatten(-1, (3, 2)).any(-1)
    assert int(touched.sum(-1).max()) == 1, "one block a row"
    seen = touched.any(-1)
    chosen = touched.long().argmax(-1)[seen]
    inside = block == chosen[:, None]
    after, before = block > chosen[:, None], block < chosen[:, None]
    assert bool((hidden[:, seen] | ~after).all()) and not bool((hidden[:, seen] & before).any())
    assert not bool((views.score[:, seen] & ~(hidden[:, seen] & inside)).any())
    shares = torch.bincount(chosen, minlength=3) / len(chosen)
    assert bool(((shares - 1 / 3).abs() < 0.05).all())
    assert bool((views.weight[~views.score] == 0).all())


def test_spg_draws_the_block_among_those_that_have_something_to_hide() -> None:
    """A row whose first blocks are given, one with a gap, and one with nothing: no draw is lost."""
    member = torch.tensor([[0, 0, 0, 0, 1, 1, 0], [1, 0, 0, 0, 0, 0, 1], [0] * 7]).bool()
    rows = torch.arange(3).repeat(2000)
    inside, later = one_block(member[rows], 2, torch.Generator().manual_seed(0))
    assert torch.equal(inside[rows == 0], member[:1].expand(2000, -1)) and not later[rows == 0].any()
    gap = inside[rows == 1]
    assert (gap.sum(1) == 1).all() and 0.45 < float(gap[:, 0].float().mean()) < 0.55
    assert torch.equal(later[rows == 1][:, 6], gap[:, 0])
    assert not inside[rows == 2].any()


def test_agrpo_by_entropy_takes_a_flows_steps_by_the_entropy_of_all_their_draws() -> None:
    item = example("flow")
    events = item.rollouts.trajectory.events
    own = item.policy.process.own_steps(item.rollouts)
    found = make("agrpo", steps_by="entropy")._step_distribution(item.rollouts, item.policy.process)
    total = torch.zeros(own.shape)
    for row, step, column, kind, entropy in zip(
        events.row, events.step, events.column, events.kind, events.entropy, strict=True
    ):
        if kind <= Kind.JUMP and item.rollouts.completion_mask[row, column]:
            total[row, step] += entropy
    total = total * own
    expected = 0.1 * own / own.sum(-1, keepdim=True) + 0.9 * total / total.sum(-1, keepdim=True)
    has_entropy = total.sum(-1) > 0
    torch.testing.assert_close(found[has_entropy], expected[has_entropy])
    assert bool((total[:, :-1] > 0).any()), "entropy lies on earlier steps, too"


def test_espo_at_the_nodes_of_a_quadrature_has_as_many_views_and_a_ratio_of_one() -> None:
    objective = make("espo", levels="quadrature", num_draws=2, beta=0.0)
    rollouts, views, new = draw(objective, "masked")
    assert (
        views.num_views == make("espo").views(rollouts, example("masked").policy.process, torch.Generator()).num_views
    )
    metrics = loss_of(objective, rollouts, views, new, scored_again("masked", rollouts, views)).metrics
    assert metrics["ratio_dev"] == 0 and not objective.estimates_elbo


@pytest.mark.parametrize("name", ["grpo", "gspo", "espo", "cj_grpo"])
def test_the_clip_rule_of_a_preset_decides_what_a_bad_and_likelier_completion_does(name: str) -> None:
    """Ratios of e^2 at A < 0: PPO lets them through, the other two rules do not."""
    norms = {}
    for rule in ("ppo", "dual", "unconditional"):
        objective = make(name, beta=0.0, advantage="centred", clip_rule=rule)
        rollouts, views, new = draw(objective, "autoregressive")
        given = gradient(objective, rollouts, views, new, new - 2.0 * views.score)
        norms[rule] = float(given[:, objective.advantages(rollouts) < 0].abs().sum())
    assert norms["ppo"] > 0 and norms["dual"] == norms["unconditional"] == 0


@pytest.mark.parametrize("family", ["masked", "block", "slot", "flow"])
def test_egspo_on_all_steps_has_the_gradient_of_cj_grpo_on_policy(family: str) -> None:
    same(make("egspo", num_steps=None), make("cj_grpo", num_steps=None, **FLAT), family, on_policy=True)


@pytest.mark.parametrize("family", ["masked", "block", "slot", "flow"])
def test_egspo_takes_the_steps_of_highest_mean_entropy_each_for_an_equal_share(family: str) -> None:
    item = example(family)
    trajectory = item.rollouts.trajectory
    entropy = torch.rand(len(trajectory.events.step), generator=torch.Generator().manual_seed(3))
    events = replace(trajectory.events, entropy=entropy)
    rollouts = replace(item.rollouts, trajectory=replace(trajectory, events=events))
    views = make("egspo", num_steps=2).views(rollouts, item.policy.process, torch.Generator())
    own = item.policy.process.own_steps(rollouts)
    for b in range(rollouts.num_rows):
        drawn = {int(step): [] for step in own[b].nonzero()}
        for e in range(int(events.start[b]), int(events.start[b + 1])):
            if events.kind[e] <= 2 and rollouts.completion_mask[b, int(events.column[e])]:
                drawn[int(events.step[e])].append(float(entropy[e]))
        mean = {step: sum(values) / max(1, len(values)) for step, values in drawn.items()}
        best = sorted(sorted(mean, key=lambda step: mean[step], reverse=True)[:2])
        chosen = [int(views.step[k, b]) for k in range(2) if bool(views.score[k, b].any())]
        assert chosen == best
        shares = views.loss_weight[:, b].amax(-1)[views.score[:, b].any(-1)]
        torch.testing.assert_close(shares, torch.full_like(shares, len(mean) / len(best)))


def test_egspo_sa_pays_a_step_for_what_the_answer_gained_from_it_on() -> None:
    item = example("masked")
    rewards = torch.rand(item.rollouts.num_rows, 3, generator=torch.Generator().manual_seed(0))
    rollouts = replace(item.rollouts, step_rewards=rewards)
    given = make("egspo_sa", lam=0.5).advantages(rollouts)
    expected = (rollouts.rewards[:, None] + 0.5 * (rollouts.rewards[:, None] - rewards)) / 1.5
    for group in rollouts.group_ids.unique():
        rows = (rollouts.group_ids == group) & rollouts.valid
        torch.testing.assert_close(given[rows], expected[rows] - expected[rows].mean(0))
    plain = make("egspo").advantages(rollouts)
    torch.testing.assert_close(make("egspo_sa", lam=0.0).advantages(rollouts), plain[:, None].expand(-1, 3))


def test_the_steps_of_other_rows_leave_an_advantage_of_mdpo_as_it_is() -> None:
    """y_s averages over a row's own steps: neither those that it idles through nor those of longer rows count."""
    item = example("masked")
    count, own = item.rollouts.num_rows, torch.tensor([0.2, 0.4, 0.6, 0.8, 1.0])

    def gains(is_asked: list[bool]) -> torch.Tensor:
        rewards, reward = [], 0.0
        left = iter(own.tolist())
        for asked in is_asked:
            reward = next(left) if asked else reward
            rewards.append(reward)
        asked = torch.tensor(is_asked).expand(count, -1)
        empty = torch.zeros(count, len(is_asked), 1)
        answers = Answers(ids=empty.long(), score=empty.bool(), confidence=empty, certainty=empty, is_asked=asked)
        rollouts = replace(item.rollouts, step_rewards=torch.tensor(rewards).expand(count, -1), answers=answers)
        return temporal_rewards(rollouts)[0][asked[0]]

    expected = torch.tensor([0.2 + 0.7, 0.2 + 0.8, 0.2 + 0.9, 0.2 + 1.0, 0.2 + 1.0])
    torch.testing.assert_close(gains([True] * 5), expected)
    torch.testing.assert_close(gains([True] * 5 + [False] * 35), expected)
    torch.testing.assert_close(gains([False, True, False, False, True, True, True, True]), expected)


def test_rspo_has_the_gradient_of_trajectory_balance_with_the_best_normaliser_of_each_group() -> None:
    objective = make("rspo", scale=0.7)
    rollouts, views, new = draw(objective, "masked")
    ref, leaf = moved(views, new), new.clone().requires_grad_()
    loss_of(objective, rollouts, views, leaf, new, ref).value.backward()
    other = new.clone().requires_grad_()
    gap = (views.weight * (other - ref)).sum((0, 2)) / lengths(rollouts) - 0.7 * rollouts.rewards
    total = torch.zeros(())
    for group in rollouts.group_ids.unique():
        rows = (rollouts.group_ids == group) & rollouts.valid
        total = total + (gap[rows] - gap[rows].mean()).square().sum() / 2 / rollouts.totals.rows
    total.backward()
    torch.testing.assert_close(leaf.grad, other.grad)
    assert bool((leaf.grad != 0).any())


def test_block_ebpo_weighs_a_scored_column_once_in_the_mean() -> None:
    item = example("block")
    rollouts = item.rollouts.rows(torch.zeros(4000, dtype=torch.long))
    views = make("block_ebpo").views(rollouts, item.policy.process, torch.Generator().manual_seed(0))
    total = views.weight.sum(0)[:, rollouts.completion_mask[0]]
    assert bool(((total.mean(0) - 1).abs() < 4 * total.std(0) / math.sqrt(4000)).all())
    shares = views.score.float().mean((1, 2)) / rollouts.completion_mask.float().mean()
    torch.testing.assert_close(shares, torch.tensor([0.125, 0.375, 0.625, 0.875]), atol=0.02, rtol=0)


@pytest.mark.parametrize("family", ["masked", "block", "slot", "flow"])
@pytest.mark.parametrize(("name", "options", "num"), [("wd1", {"num_strata": 3}, 3), ("espo", {"levels": "strata"}, 4)])
def test_strata_score_every_column_once_given_the_others(family: str, name: str, options: dict, num: int) -> None:
    objective, item = make(name, **options), example(family)
    rollouts, views, new = draw(objective, family)
    assert views.num_views == num == objective.num_views
    assert torch.equal(views.score.sum(0), rollouts.completion_mask.long())
    assert torch.equal(views.weight, views.score.float())
    if family != "flow":
        is_hidden = views.tokens == item.policy.mask_id
        editable = item.policy.process.editable(rollouts)
        assert bool((is_hidden.sum(0)[editable] == 1).all()), "a column is hidden with its own stratum alone"
    again = scored_again(family, rollouts, views)
    if objective.needs_old:
        assert loss_of(objective, rollouts, views, new, again, again).metrics["ratio_dev"] == 0.0
    else:
        assert torch.equal(new, again)


def test_one_stratum_is_the_one_step_view() -> None:
    item = example("masked")
    generator = torch.Generator().manual_seed(0)
    one, two = (
        item.policy.process.strata(item.rollouts, generator, num_strata=1),
        make("wd1").views(item.rollouts, item.policy.process, generator),
    )
    assert torch.equal(one.tokens, two.tokens) and torch.equal(one.score, two.score)
