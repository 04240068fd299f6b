"""Advantages: closed forms, relations between the estimators, lost rows, and what is refused."""

from __future__ import annotations

from statistics import fmean, variance

import pytest
import torch

from dllm_rl.advantages import centred, leave_one_out, normalised, shrunk
from dllm_rl.errors import NonFiniteError

REWARDS = torch.tensor([1.0, 0.0, 0.5, 0.2, 0.0, 0.9])
GROUPS = torch.tensor([9, 4, 9, 4, 9, 4])
VALID = torch.ones(6, dtype=torch.bool)


def test_centred_is_reward_less_group_mean() -> None:
    expected = REWARDS - torch.tensor([0.5, 1.1 / 3, 0.5, 1.1 / 3, 0.5, 1.1 / 3])
    torch.testing.assert_close(centred(REWARDS, GROUPS, VALID), expected)


def test_normalised_divides_by_the_sample_deviation() -> None:
    std = torch.tensor([REWARDS[group == GROUPS].std() for group in GROUPS])
    torch.testing.assert_close(normalised(REWARDS, GROUPS, VALID), centred(REWARDS, GROUPS, VALID) / (std + 1e-4))


def test_leave_one_out_is_the_mean_of_the_others() -> None:
    given = leave_one_out(REWARDS, GROUPS, VALID)
    for row in range(6):
        others = (GROUPS[row] == GROUPS) & (torch.arange(6) != row)
        torch.testing.assert_close(given[row], REWARDS[row] - REWARDS[others].mean())
    torch.testing.assert_close(given, centred(REWARDS, GROUPS, VALID) * 3 / 2)


def test_shrunk_lies_between_the_means_of_the_group_and_of_the_step() -> None:
    """Its formula in plain Python, on groups of unequal size."""
    rewards = [[1.0, 0.0, 0.5, 0.5], [0.2, 0.0], [0.9, 0.8, 1.0]]
    means = [fmean(group) for group in rewards]
    within = sum((r - m) ** 2 for g, m in zip(rewards, means, strict=True) for r in g) / sum(
        len(g) - 1 for g in rewards
    )
    noise = [within / len(group) for group in rewards]
    between = variance(means) - fmean(noise)
    expected = [
        r - (m + s / (s + between) * (fmean(means) - m))
        for g, m, s in zip(rewards, means, noise, strict=True)
        for r in g
    ]
    groups = torch.tensor([3, 3, 3, 3, 1, 1, 2, 2, 2])
    given = shrunk(torch.tensor([r for group in rewards for r in group]), groups, torch.ones(9, dtype=torch.bool))
    assert between > 0
    torch.testing.assert_close(given, torch.tensor(expected))


def test_a_shrunk_baseline_is_nearer_to_the_truth_than_the_mean_of_a_small_group() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(400, generator=generator).repeat_interleave(4)
    rewards = (torch.rand(1600, generator=generator) < truth).float()
    groups, valid = torch.arange(400).repeat_interleave(4), torch.ones(1600, dtype=torch.bool)
    errors = [float((rewards - shrunk(rewards, groups, valid) - truth).square().mean())]
    # The group's mean, also where `centred` gives equal rewards exact zeros.
    errors += [float((rewards.view(400, 4).mean(1).repeat_interleave(4) - truth).square().mean())]
    assert errors[0] < 0.75 * errors[1]


def test_a_failed_group_is_pushed_away_where_others_succeed() -> None:
    rewards = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 1.0])
    groups, valid = torch.tensor([1, 1, 1, 2, 2, 2]), torch.ones(6, dtype=torch.bool)
    assert bool((shrunk(rewards, groups, valid)[:3] < 0).all())
    assert torch.equal(centred(rewards, groups, valid)[:3], torch.zeros(3))


@pytest.mark.parametrize("estimator", [centred, normalised, leave_one_out, shrunk])
def test_lost_rows_get_nothing_and_move_nothing(estimator) -> None:
    valid = VALID.clone()
    valid[0] = False
    rewards = REWARDS.clone()
    rewards[0] = torch.nan
    given = estimator(rewards, GROUPS, valid)
    kept = valid.nonzero()[:, 0]
    assert given[0] == 0
    torch.testing.assert_close(given[kept], estimator(REWARDS[kept], GROUPS[kept], VALID[kept]))


@pytest.mark.parametrize("estimator", [centred, normalised, leave_one_out, shrunk])
def test_equal_rewards_give_exact_zeros(estimator) -> None:
    rewards = torch.tensor([0.1, 0.7, 0.1, 0.7, 0.1, 0.7]) + 1e-8 * torch.arange(6)
    assert torch.equal(estimator(rewards, GROUPS, VALID), torch.zeros(6))


@pytest.mark.parametrize("estimator", [centred, normalised, leave_one_out])
def test_a_row_alone_in_its_group_gets_zero(estimator) -> None:
    """Whether the others were lost, or are no longer there."""
    valid = torch.tensor([True, True, False, True, False, True])
    assert estimator(REWARDS, GROUPS, valid)[0] == 0
    assert torch.equal(estimator(REWARDS, torch.arange(6), VALID), torch.zeros(6))


def test_a_nan_reward_is_an_error() -> None:
    rewards = REWARDS.clone()
    rewards[3] = torch.nan
    with pytest.raises(NonFiniteError, match="row 3"):
        centred(rewards, GROUPS, VALID)
