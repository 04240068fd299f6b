"""The properties that every objective has on every family it declares, checked on small float32 policies.

`check_objective(objective)` raises `PropertyError` with the name of the property, the family and what to do. An
objective that breaks a property on purpose says so in its class attribute `exceptions` (name of the property: reason);
the suite then expects it to break. Legend: b rows, l canvas, k views.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dllm_rl.records.types import Rollouts
from dllm_rl.registry import families_of
from dllm_rl.testing._contract import (
    declared_views,
    flags,
    invalid_rows,
    left_padding,
    metric_names,
    micro_batches,
    numerics,
    old_scores,
    permutation,
    purity,
    same_generator,
    tail,
    two_passes,
)
from dllm_rl.testing._learning import (
    Case,
    elbo_views,
    equal_rewards,
    flat_groups,
    on_policy,
    penalty,
    policy_gradient,
    sign_of_advantage,
)
from dllm_rl.testing.policies import sampled


class PropertyError(AssertionError):
    """An objective that breaks a property, or one that declares a broken property which in fact holds."""


def check_objective(
    objective: Any, *, policies: Sequence[tuple[Any, Rollouts]] | None = None, seed: int = 0
) -> list[tuple[str, str]]:
    """Check every property on every declared family. Returns the (family, property) pairs that were checked.

    Args:
        policies: (policy, rollouts) pairs to check on; None takes a tiny policy of each declared family.
        seed: Of these policies' weights and of what they wrote.

    Raises PropertyError at the first property that does not hold.
    """
    if policies is None:
        policies = [sampled(family, seed=seed) for family in families_of(objective)]
    checked = []
    for policy, rollouts in policies:
        case = _case(objective, policy, rollouts)
        for name, check in PROPERTIES.items():
            _check_one(case, name, check)
            checked.append((policy.family, name))
    return checked


def _check_one(case: Case, name: str, check: Callable[[Case], None]) -> None:
    where = f"objective '{case.objective.name}' on the {case.policy.family} family, property '{name}'"
    is_exception = name in case.objective.exceptions
    try:
        check(case)
    except AssertionError as error:
        if not is_exception:
            raise PropertyError(f"{where}: {error}") from error
        return
    if is_exception:
        raise PropertyError(f"{where}: declared as an exception, but it holds. Remove it from `exceptions`.")


def _case(objective: Any, policy: Any, rollouts: Rollouts) -> Case:
    views = objective.views(rollouts, policy.process, torch.Generator().manual_seed(0))
    return Case(
        objective=objective,
        policy=policy,
        rollouts=rollouts,
        views=views,
        advantages=objective.advantages(rollouts),
    )


PROPERTIES: dict[str, Callable[[Case], None]] = {
    check.__name__: check
    for check in (
        flags,
        declared_views,
        old_scores,
        on_policy,
        policy_gradient,
        sign_of_advantage,
        equal_rewards,
        flat_groups,
        penalty,
        same_generator,
        permutation,
        micro_batches,
        two_passes,
        left_padding,
        tail,
        elbo_views,
        purity,
        metric_names,
        numerics,
        invalid_rows,
    )
}
