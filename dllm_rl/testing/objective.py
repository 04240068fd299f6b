"""The properties that every objective has on every family it declares, checked on small float32 policies.

`check_objective(objective)` raises `PropertyError` with the name of the property, the family and what to do. An
objective that breaks a property on purpose says so in its class attribute `exceptions` (name of the property: reason);
the suite then expects it to break. Legend: b rows, l canvas, k views.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from dllm_rl import registry
from dllm_rl.protocols import Objective
from dllm_rl.records.types import Rollouts
from dllm_rl.registry import families_of
from dllm_rl.testing._contract import (
    advantage_shape,
    declared_views,
    flags,
    invalid_rows,
    left_padding,
    mean_over,
    metric_names,
    micro_batches,
    numerics,
    old_scores,
    permutation,
    purity,
    replays,
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

    Raises PropertyError at the first property that does not hold, and where an error is raised on the way.
    """
    _refuse_undeclared(objective)
    families = checked_families("objective", objective)
    if policies is None:
        policies = [sampled(family, seed=seed) for family in families]
    checked = []
    for policy, rollouts in policies:
        with _told(f"objective '{objective.name}' on the {policy.family} family"):
            case = _case(objective, policy, rollouts)
        for name, check in PROPERTIES.items():
            _check_one(case, name, check)
            checked.append((policy.family, name))
    return checked


def _check_one(case: Case, name: str, check: Callable[[Case], None]) -> None:
    where = f"objective '{case.objective.name}' on the {case.policy.family} family, property '{name}'"
    is_exception = name in case.objective.exceptions
    try:
        with _told(where):
            check(case)
    except AssertionError as error:
        if isinstance(error, PropertyError):
            raise
        if not is_exception:
            raise PropertyError(f"{where}: {error}") from error
        return
    if is_exception:
        raise PropertyError(f"{where}: declared as an exception, but it holds. Remove it from `exceptions`.")


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Raise PropertyError in place of an error that comes from the objective; what a check says goes through."""
    try:
        yield
    except Exception as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        is_verdict = isinstance(error, AssertionError) and frame.f_globals["__name__"].startswith("dllm_rl.testing.")
        if is_verdict:
            raise
        raise PropertyError(f"{where}: {type(error).__name__}: {error}") from error


def _refuse_undeclared(objective: Any) -> None:
    declared = [*Objective.__annotations__, *(name for name in vars(Objective) if not name.startswith("_"))]
    if missing := [name for name in declared if not hasattr(objective, name)]:
        raise PropertyError(
            f"{type(objective).__name__} does not declare {', '.join(missing)}. Write them as "
            "`dllm_rl.protocols.Objective` does, or derive the class from `objectives.Method`."
        )


def checked_families(kind: str, component: Any) -> tuple[str, ...]:
    """The families that a component is checked on. Raises PropertyError where it names none, or one that is unknown."""
    families, unknown = families_of(component), registry.unknown_families(component)
    if families and not unknown:
        return families
    known = ", ".join(registry.names("policy"))
    what = f"of which {', '.join(unknown)} is unknown" if unknown else "so that nothing is to be checked"
    raise PropertyError(
        f"{kind} '{component.name}' has families={component.families!r}, {what}. Give a tuple of names: any, {known}."
    )


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
        replays,
        advantage_shape,
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
        mean_over,
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
