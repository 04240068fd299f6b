"""Every registered objective keeps every promise on every family it declares, on tiny policies of the real classes."""

from __future__ import annotations

import functools
import re
from dataclasses import replace

import pytest
import torch

from dllm_rl import registry
from dllm_rl.answers import draw_answers
from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy
from dllm_rl.testing import check_objective, sampled
from dllm_rl.trajectory_views import trajectory
from dllm_rl.types import Rollouts
from tests.tiny_policies import PROMPTS, make_tiny_policy

CASES = [(name, family) for name, cls in registry.items("objective") for family in cls.families]
SAMPLERS = {
    "autoregressive": "ar",
    "masked": "low_confidence",
    "block": "low_confidence",
    "slot": "slots",
    "flow": "flow_exact",
}


@functools.cache
def real(family: str) -> tuple[BasePolicy, Rollouts]:
    """A tiny policy of the real classes, with two groups of sampled completions, one of which is lost."""
    policy = make_tiny_policy(family, sharpness=4.0)
    prompts = policy.prompts([PROMPTS[0]] * 3 + [PROMPTS[1]] * 3, list(range(6)))
    drawn = registry.get("sampler", SAMPLERS[family])().generate(policy, prompts, seed=0)
    group_ids = torch.tensor([5, 5, 5, 2, 2, 2])
    valid = torch.tensor([True, True, True, True, False, True])
    steps = drawn.trajectory.num_steps
    generator = torch.Generator().manual_seed(0)
    rollouts = Rollouts(
        prompt_ids=prompts.ids,
        prompt_mask=prompts.mask,
        completion_ids=drawn.ids,
        completion_mask=drawn.mask,
        rewards=torch.rand(6, generator=generator),
        group_ids=group_ids,
        valid=valid,
        trajectory=drawn.trajectory,
        totals=Rollouts.count_totals(valid, group_ids, drawn.mask),
        step_rewards=torch.rand(6, steps, generator=generator),
    )
    if family != "autoregressive":
        rollouts = replace(rollouts, answers=draw_answers(policy, rollouts, generator))
    return policy, rollouts


def test_at_least_twenty_methods_say_where_they_come_from() -> None:
    classes = dict(registry.items("objective"))
    assert sum(bool(cls.paper) for cls in classes.values()) >= 20
    for name, cls in classes.items():
        assert cls.name == name
        assert re.fullmatch(r"(\d{4}\.\d{5})?", cls.paper), f"{name}: '{cls.paper}' is not the id of a paper"
        assert cls.__doc__


@pytest.mark.parametrize(("name", "family"), CASES)
def test_properties(name: str, family: str) -> None:
    assert check_objective(registry.get("objective", name)(), policies=[sampled(family)])


@pytest.mark.parametrize(("name", "family"), CASES)
def test_properties_hold_with_a_penalty(name: str, family: str) -> None:
    try:
        objective = registry.build("objective", name, {"beta": 0.5})
    except ConfigError:
        pytest.skip("has no penalty")
    assert check_objective(objective, policies=[sampled(family)])


@pytest.mark.parametrize("family", SAMPLERS)
def test_replaying_all_steps_gives_what_the_sampler_recorded(family: str) -> None:
    """The views of a trajectory read what the sampler read: canvas, feed order, time, and the law it drew from."""
    policy, rollouts = real(family)
    views = trajectory(rollouts, policy.process, torch.Generator().manual_seed(0))
    with torch.no_grad():
        replayed = policy.view_log_probs(rollouts, views).sum(0)
    mask = rollouts.completion_mask
    assert rollouts.trajectory is not None
    torch.testing.assert_close(replayed[mask], rollouts.trajectory.log_probs[mask], rtol=1e-4, atol=1e-4)
