"""Metrics of a reward that could be gamed: what it claims beside the truth, and the parts that it is made of.

Only rewards that do not read the truth claim anything; for the others there is no gap that could open.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dllm_rl.records.rollout import Rollout
from dllm_rl.records.tasks import Fault


def reward_metrics(rollouts: Sequence[Rollout], groups: Sequence[int]) -> dict[str, float]:
    """Means of the reward's parts, and how its claims compare with success; over valid rollouts.

    `judge_fault_share`: rollouts without an answer of the judge, of those that it was shown; absent where what is paid
    is a function of the outcome.

    Args:
        groups: Number of the group of each rollout.
    """
    valid = [(item, group) for item, group in zip(rollouts, groups, strict=True) if item.outcome.is_valid]
    names = dict.fromkeys(name for item, _ in valid for name in item.reward.components)
    found = {
        f"rewards/{name}/mean": float(np.mean([item.reward.components.get(name, 0.0) for item, _ in valid]))
        for name in names
    }
    claimed = [(item, group) for item, group in valid if item.reward.claim is not None]
    num_unjudged = sum(item.outcome.fault is Fault.JUDGE for item in rollouts)
    if names or claimed or num_unjudged:
        found["judge_fault_share"] = num_unjudged / (num_unjudged + len(valid))
    judged = [(item.reward.claim, item.outcome.is_success, group) for item, group in claimed]
    if not judged:
        return found
    claims, success, numbers = (np.array(column, dtype=float) for column in zip(*judged, strict=True))
    return found | claim_metrics(claims, success, numbers)


def claim_metrics(claims: np.ndarray, success: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Claims against the truth.

    claim: mean claim. reward_gap: mean claim less mean success. rank_agreement: Kendall's tau-b between claims and
    success within groups, mean over the groups in which some succeed and some do not; claims that are all equal there
    agree with nothing (0). Absent where there is no such group.
    """
    found = {"claim": float(claims.mean()), "reward_gap": float(claims.mean() - success.mean())}
    mixed = [groups == group for group in np.unique(groups) if 0 < success[groups == group].mean() < 1]
    if mixed:
        taus = [_tau(claims[members], success[members]) for members in mixed]
        found |= {"rank_agreement": float(np.mean(taus)), "rank_groups": float(len(taus))}
    return found


def _tau(claims: np.ndarray, success: np.ndarray) -> float:
    """Kendall's tau-b, without the p-value that takes SciPy most of its time. Both kinds of outcome must be there."""
    claimed, done = (np.sign(values[:, None] - values) for values in (claims, success))
    untied = np.sqrt((claimed**2).sum() * (done**2).sum())
    return float((claimed * done).sum() / untied) if untied else 0.0
