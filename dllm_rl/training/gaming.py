"""Metrics of a reward that could be gamed: what it claims beside the truth, and the parts that it is made of.

Only rewards that do not read the truth claim anything; for the others there is no gap that could open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dllm_rl.records.rollout import Rollout


def reward_metrics(rollouts: Sequence[Rollout], groups: Sequence[int]) -> dict[str, float]:
    """Means of the reward's parts, and how its claims compare with success; over valid rollouts.

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
    from scipy.stats import kendalltau

    if np.ptp(claims) == 0:
        return 0.0
    found: Any = kendalltau(claims, success)
    return float(found.statistic)
