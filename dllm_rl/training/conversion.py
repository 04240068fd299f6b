"""What becomes of plans whose fields are all right, and whether the draw or the task decides it.

The within-group share of the variance is 1 less Kelley's epsilon squared (1935): the pooled variance inside the groups
over the variance of all rollouts, each with its own degrees of freedom, so that small groups do not lower it.

Legend: n rollouts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.records.tasks import Outcome


def conversion_metrics(outcomes: Sequence[Outcome], group_ids: Int[Tensor, " n"]) -> dict[str, float]:
    """Shares over valid rollouts; absent where undefined.

    A rollout is right if all its fields are as wanted: it is a success or a near miss. Near misses can only be seen
    where outcomes show the values of fields, so an environment without such values has none of these metrics.

    - `right`: share of rollouts that are right: the ceiling of `success` while no field is learned.
    - `near_miss`: share of rollouts that are right and not accepted.
    - `conversion`: successes among right rollouts.
    - `right_mixed_groups`: groups in which some right rollouts succeed and some do not, among the groups with two or
      more right rollouts.
    - `right_within_share`: `within_share` of success among right rollouts.
    """
    valid = [index for index, outcome in enumerate(outcomes) if outcome.is_valid]
    if not any(field.dom is not None for index in valid for field in outcomes[index].fields):
        return {}
    right = [index for index in valid if outcomes[index].is_success or outcomes[index].is_near_miss]
    metrics = {
        "right": len(right) / len(valid),
        "near_miss": sum(outcomes[index].is_near_miss for index in right) / len(valid),
    }
    if not right:
        return metrics
    success = torch.tensor([outcomes[index].is_success for index in right])
    metrics["conversion"] = float(success.float().mean())
    groups = group_ids[right]
    shares = {"right_mixed_groups": mixed_groups(success, groups), "right_within_share": within_share(success, groups)}
    return metrics | {name: share for name, share in shares.items() if share is not None}


def mixed_groups(success: Bool[Tensor, " n"], group_ids: Int[Tensor, " n"]) -> float | None:
    """Share of groups in which some rollouts succeed and some fail, among groups of two or more; None without those."""
    means, sizes = _by_group(success, group_ids)
    could_be = sizes >= 2
    if not could_be.any():
        return None
    return float(((means > 0) & (means < 1))[could_be].double().mean())


def within_share(success: Bool[Tensor, " n"], group_ids: Int[Tensor, " n"]) -> float | None:
    """Share of the variance of success that lies within groups.

    1: the draw decides, whatever the task; in the mean also for groups of two, so that single steps exceed 1. 0: the
    task decides, and no group has anything to compare. None where all rollouts end alike, or no group has two.
    """
    means, sizes = _by_group(success, group_ids)
    num_rows, num_groups = len(success), len(sizes)
    total = _spread(success.double().mean()) * num_rows
    if num_rows == num_groups or total == 0:
        return None
    within = (_spread(means) * sizes).sum()
    return float((within / (num_rows - num_groups)) / (total / (num_rows - 1)))


def _spread(mean: Float[Tensor, "*g"]) -> Float[Tensor, "*g"]:
    """Mean squared deviation of zeros and ones of this mean."""
    return mean * (1 - mean)


def _by_group(success: Tensor, group_ids: Tensor) -> tuple[Float[Tensor, " g"], Float[Tensor, " g"]]:
    """Mean and size of each group."""
    _, place = group_ids.unique(return_inverse=True)
    sizes = torch.bincount(place).double()
    return torch.bincount(place, weights=success.double()) / sizes, sizes
