"""Advantages: how much better a rollout did than the others of its task (2402.03300, 2402.14740, 2602.05165).

Groups are named by `group_ids`, never by position. Rows lost to the environment (`valid` False) get 0 and move no
baseline. A group whose rewards are all equal, or that has one row left, gets exact zeros, unless the baseline looks
beyond the group (`shrunk`). Legend: b rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import NonFiniteError
from dllm_rl.records.types import Rollouts

EQUAL_REWARDS = 1e-6
STD_FLOOR = 1e-4

AdvantageName = Literal["centred", "normalised", "leave_one_out", "shrunk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Statistics of each row's group, over valid rows only, spread back over the rows.

    Attributes:
        count: Valid rows of the group.
        mean: Their mean reward.
        std: With n - 1 in the denominator, 0 for a single row.
        spread: Largest reward less smallest.
    """

    count: Float[Tensor, " b"]
    mean: Float[Tensor, " b"]
    std: Float[Tensor, " b"]
    spread: Float[Tensor, " b"]


def groups(rewards: Float[Tensor, " b"], group_ids: Int[Tensor, " b"], valid: Bool[Tensor, " b"]) -> Groups:
    """Summarise the rewards of each group. Raises NonFiniteError where a valid reward is not finite."""
    _, index, sizes = group_ids.unique(return_inverse=True, return_counts=True)
    if not bool(rewards[valid].isfinite().all()):
        row = int((valid & ~rewards.isfinite()).nonzero()[0])
        raise NonFiniteError(f"the reward of row {row} is {float(rewards[row])}; a valid row needs a finite reward.")
    rewards = torch.where(valid, rewards, torch.zeros_like(rewards))
    per_group = torch.zeros(sizes.numel(), dtype=rewards.dtype, device=rewards.device)
    count = per_group.index_add(0, index, valid.to(rewards.dtype))
    mean = per_group.index_add(0, index, rewards) / count.clamp(min=1)
    squares = torch.where(valid, (rewards - mean[index]).square(), torch.zeros_like(rewards))
    std = (per_group.index_add(0, index, squares) / (count - 1).clamp(min=1)).sqrt()
    high = per_group.scatter_reduce(0, index[valid], rewards[valid], "amax", include_self=False)
    low = per_group.scatter_reduce(0, index[valid], rewards[valid], "amin", include_self=False)
    return Groups(count=count[index], mean=mean[index], std=std[index], spread=(high - low)[index])


def centred(
    rewards: Float[Tensor, " b"], group_ids: Int[Tensor, " b"], valid: Bool[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Reward less the mean of the group (Dr. GRPO, 2503.20783)."""
    group = groups(rewards, group_ids, valid)
    has_signal = valid & (group.spread >= EQUAL_REWARDS)
    return torch.where(has_signal, rewards - group.mean, torch.zeros_like(rewards))


def normalised(
    rewards: Float[Tensor, " b"], group_ids: Int[Tensor, " b"], valid: Bool[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Centred and divided by the group's standard deviation (GRPO, 2402.03300); inflates easy and hard groups."""
    group = groups(rewards, group_ids, valid)
    return centred(rewards, group_ids, valid) / (group.std + STD_FLOOR)


def leave_one_out(
    rewards: Float[Tensor, " b"], group_ids: Int[Tensor, " b"], valid: Bool[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Reward less the mean of the *other* rows of the group (RLOO, 2402.14740): n / (n - 1) times `centred`."""
    group = groups(rewards, group_ids, valid)
    return centred(rewards, group_ids, valid) * group.count / (group.count - 1).clamp(min=1)


def shrunk(
    rewards: Float[Tensor, " b"], group_ids: Int[Tensor, " b"], valid: Bool[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Reward less a baseline between the means of the group and of the step (empirical Bayes, 2602.05165).

    The baseline is (1 - S) mean_q + S mean_all with S = (s2 / n_q) / (s2 / n_q + t2): s2 is the variance within groups,
    pooled, and t2 that of the groups' means beyond what s2 explains, never negative. So a group of equal rewards
    still has an advantage where other groups did better or worse, if there is noise within groups at all.
    Departure: the paper's prior adds up over training (Welford); here it is that of the step, so that advantages
    follow from the rollouts of a step alone.
    """
    group = groups(rewards, group_ids, valid)
    share = torch.where(valid, 1 / group.count.clamp(min=1), 0.0)
    num_groups = share.sum().clamp(min=1)
    degrees = (share * (group.count - 1)).sum()
    within = (share * (group.count - 1) * group.std.square()).sum() / degrees.clamp(min=1)
    mean = (share * group.mean).sum() / num_groups
    scatter = (share * (group.mean - mean).square()).sum() / (num_groups - 1).clamp(min=1)
    noise = within * share
    between = (scatter - within * (share * share).sum() / num_groups).clamp(min=0)
    pull = torch.where(noise > 0, noise / (noise + between).clamp(min=1e-12), torch.zeros_like(noise))
    baseline = group.mean + pull * (mean - group.mean)
    rewards = torch.where(valid, rewards, torch.zeros_like(rewards))
    gap = torch.where(valid, rewards - baseline, torch.zeros_like(rewards))
    return torch.where(gap.abs() < EQUAL_REWARDS, torch.zeros_like(gap), gap)


ESTIMATORS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "centred": centred,
    "normalised": normalised,
    "leave_one_out": leave_one_out,
    "shrunk": shrunk,
}


def advantages(rollouts: Rollouts, estimator: AdvantageName) -> Float[Tensor, " b"]:
    """Advantages of whole groups by the named estimator."""
    return ESTIMATORS[estimator](rollouts.rewards, rollouts.group_ids, rollouts.valid)
