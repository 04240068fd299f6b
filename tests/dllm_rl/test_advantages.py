"""Advantages: closed forms, relations between the estimators, lost rows, and what is refused."""

from __future__ import annotations

import pytest
import torch

from dllm_rl.advantages import centred, leave_one_out, normalised
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


@pytest.mark.parametrize("estimator", [centred, normalised, leave_one_out])
def test_lost_rows_get_nothing_and_move_nothing(estimator) -> None:
    valid = VALID.clone()
    valid[0] = False
    rewards = REWARDS.clone()
    rewards[0] = torch.nan
    given = estimator(rewards, GROUPS, valid)
    kept = valid.nonzero()[:, 0]
    assert given[0] == 0
    torch.testing.assert_close(given[kept], estimator(REWARDS[kept], GROUPS[kept], VALID[kept]))


@pytest.mark.parametrize("estimator", [centred, normalised, leave_one_out])
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
