"""Every registered objective keeps every promise on every family it declares, on tiny policies of the real classes."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import pytest
import torch

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.records.types import LossInputs
from dllm_rl.registry import families_of
from dllm_rl.testing import check_objective, sampled

CASES = [(name, family) for name, cls in registry.items("objective") for family in families_of(cls)]
PENALTY = {"beta": 0.5}


def takes_a_penalty(name: str) -> bool:
    try:
        return bool(registry.build("objective", name, PENALTY))
    except ConfigError:
        return False


# The others have a penalty by default, or have none.
WITHOUT_PENALTY = [
    (name, family) for name, family in CASES if not registry.build("objective", name).beta and takes_a_penalty(name)
]


def test_at_least_twenty_methods_say_where_they_come_from() -> None:
    classes = dict(registry.items("objective"))
    assert sum(bool(cls.paper) for cls in classes.values()) >= 20
    for name, cls in classes.items():
        assert cls.name == name
        assert re.fullmatch(r"(\d{4}\.\d{5})?", cls.paper), f"{name}: '{cls.paper}' is not the id of a paper"
        assert cls.__doc__


@pytest.mark.slow
@pytest.mark.parametrize(("name", "family"), CASES)
def test_properties(name: str, family: str) -> None:
    assert check_objective(registry.get("objective", name)(), policies=[sampled(family)])


@pytest.mark.parametrize(("name", "family"), WITHOUT_PENALTY)
def test_properties_hold_with_a_penalty(name: str, family: str) -> None:
    assert check_objective(registry.build("objective", name, PENALTY), policies=[sampled(family)])


@pytest.mark.parametrize("family", registry.names("policy"))
def test_replaying_all_steps_gives_what_the_sampler_recorded(family: str) -> None:
    """The views of a trajectory read what the sampler read: canvas, feed order, time, and the law it drew from."""
    policy, rollouts = sampled(family)
    views = policy.process.replay(rollouts, torch.Generator().manual_seed(0))
    with torch.no_grad():
        replayed = policy.view_log_probs(rollouts, views).sum(0)
    mask = rollouts.completion_mask
    assert rollouts.trajectory is not None
    torch.testing.assert_close(replayed[mask], rollouts.trajectory.log_probs[mask], rtol=1e-4, atol=1e-4)


# What an option may be, by its type; the first values that it takes are tried.
NUMBERS = (0.01, 0.5, 0.99, 1.01, 3.0, 1, 2, 3)
WORDS = ("centred", "normalised", "dual", "unconditional", "k2", "k3", "entropy", "quadrature")
TRIALS: tuple[Any, ...] = (*NUMBERS, True, False, None, *WORDS)


def effect(objective: Any, family: str, *, distance: float = 1.0) -> tuple[float, ...] | None:
    """Loss and gradient off policy (on policy where no second inner step is allowed), with a reference policy.

    distance is the deviation of log new/old by term. None where the family refuses what the option asks for.
    """
    policy, rollouts = sampled(family)
    try:
        views = objective.views(rollouts, policy.process, torch.Generator().manual_seed(0))
    except ConfigError:
        return None
    with torch.no_grad():
        new = policy.view_log_probs(rollouts, views)
    noise = distance * torch.randn(new.shape, generator=torch.Generator().manual_seed(2)) * views.score
    old = new if objective.max_inner_steps == 1 else new + noise
    leaf = new.clone().requires_grad_()
    inputs = LossInputs(
        rollouts=rollouts,
        views=views,
        new=leaf,
        old=old.detach() if objective.needs_old else None,
        ref=new - noise if objective.needs_ref else None,
        advantages=objective.advantages(rollouts),
    )
    loss = objective.loss(inputs).value
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.item(), gradient.norm().item(), float(views.num_views)


@pytest.mark.parametrize("name", registry.names("objective"))
def test_every_option_has_an_effect_or_is_refused(name: str) -> None:
    """An option that a method has from its base class and does not read takes its default alone."""
    cls = registry.get("objective", name)
    base = PENALTY if takes_a_penalty(name) else {}
    plain = {family: effect(registry.build("objective", name, base), family) for family in families_of(cls)}
    for option in fields(cls):
        others = []
        named = get_args(get_type_hints(cls)[option.name]) if isinstance(option.default, str) else ()
        for value in set(named) - {option.default}:
            pair = [registry.build("objective", name, {**base, **more}) for more in ({}, {option.name: value})]
            # Some clips begin far off policy.
            effects = (tuple(effect(one, family, distance=far) for one in pair) for far in (1, 20) for family in plain)
            assert any(with_value != without for without, with_value in effects), f"{option.name}={value}"
        for trial in TRIALS:
            try:
                others.append(registry.build("objective", name, {**base, option.name: trial}))
            except ConfigError:
                continue
        others = [other for other in others if getattr(other, option.name) != option.default]
        effects = (effect(other, family) != plain[family] for other in others for family in plain)
        assert not others or any(effects), f"{option.name} changes nothing"
