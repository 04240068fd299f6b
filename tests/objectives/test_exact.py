"""The theorem that replaying objectives rest on: their expected update is the gradient of the expected reward.

All paths of the real samplers are enumerated, on canvases with FILL, EOS and padding, and their exact probabilities
weigh what the loss makes of each. Divided by a row's own number of draws, as the objectives divide, a reward stands for
itself times that number. Legend: b paths.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from dllm_rl import registry
from dllm_rl.records.types import LossInputs, Replays, Rollouts
from dllm_rl.registry import families_of
from objectives.losses.ratios import lengths
from tests.objectives.paths import Paths, enumerated, small_policy

# Divisible by every number of steps that a row may have, so that evenly spread levels take each step equally often.
NUM_LEVELS = 12
REPLAYING: dict[str, dict[str, Any]] = {
    "cj_grpo": {"num_steps": None, "beta": 0.0},
    "flow_grpo": {"num_steps": None, "beta": 0.0, "max_advantage": 1e12},
    "agrpo": {"num_steps": NUM_LEVELS},
    "egspo": {"num_steps": None},
    "egspo_sa": {"num_steps": None},
    "mask_aware_grpo": {"num_steps": None},
    "tracerl": {"shrink": 1, "beta": 0.0},
}
# Of the length of the gradient; agrpo's weights, 1 / (n q), are rounded to float32.
TOLERANCE = {"agrpo": 1e-7}
SAMPLERS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "autoregressive": [("ar", {})],
    "masked": [
        ("low_confidence", {"num_steps": 4}),
        ("low_confidence", {"num_steps": 2}),
        ("low_confidence", {"num_steps": 4, "block_length": 2}),
        ("threshold", {"threshold": 0.5}),
        ("margin", {"num_steps": 3}),
    ],
    "block": [("threshold", {"threshold": 0.5}), ("low_confidence", {"num_steps": 4})],
    "slot": [("slots", {}), ("slots", {"slot_threshold": 0.3, "token_threshold": 0.3})],
    "flow": [("flow_exact", {"num_steps": 2}), ("flow_euler", {"num_steps": 2})],
}
CASES = [(family, *chosen) for family, several in SAMPLERS.items() for chosen in several]
EACH = pytest.mark.parametrize(("family", "sampler", "options"), CASES, ids=str)


@functools.cache
def _paths(family: str, sampler: str, options: tuple[tuple[str, Any], ...]) -> Paths:
    return enumerated(small_policy(family), registry.build("sampler", sampler, dict(options)))


def paths(family: str, sampler: str, options: dict[str, Any]) -> Paths:
    return _paths(family, sampler, tuple(options.items()))


def gradient(value: Tensor, given: Paths) -> Tensor:
    parameters = [parameter for parameter in given.policy.model.parameters() if parameter.requires_grad]
    parts = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
    return torch.cat(
        [torch.zeros(p.numel()) if part is None else part.flatten() for p, part in zip(parameters, parts, strict=True)]
    )


def expected_update(objective: Any, given: Paths, rollouts: Rollouts) -> Tensor:
    """Gradient of the loss over all paths, each with the weight of its probability."""
    even = (torch.arange(NUM_LEVELS)[:, None] + 0.5) / NUM_LEVELS
    with mock.patch("objectives.agrpo.stratified", lambda rows, *_: even.expand(-1, rows)):
        views = objective.views(rollouts, given.policy.process, torch.Generator().manual_seed(0))
    new = given.policy.view_log_probs(rollouts, views)
    weight = given.log_probs.detach().exp() * rollouts.num_rows
    inputs = LossInputs(
        rollouts=rollouts,
        views=views,
        new=new,
        old=new.detach() if objective.needs_old else None,
        ref=None,
        advantages=given.rewards * weight * lengths(rollouts),
    )
    return gradient(objective.loss(inputs).value, given)


def distance(given: Tensor, expected: Tensor) -> float:
    return float((given - expected).norm() / expected.norm())


@EACH
def test_the_paths_are_all_and_their_probabilities_the_samplers(family: str, sampler: str, options: dict) -> None:
    given = paths(family, sampler, options)
    assert float(given.log_probs.detach().exp().sum()) == pytest.approx(1.0, abs=1e-8)
    canvas, ids = given.policy.canvas, given.completions.ids
    assert {canvas.pad_id, canvas.eos_id, canvas.fill_id} < set(ids.unique().tolist())


@EACH
def test_the_expected_update_is_the_gradient_of_the_expected_reward(family: str, sampler: str, options: dict) -> None:
    given = paths(family, sampler, options)
    truth = -gradient((given.log_probs.exp() * given.rewards).sum(), given)
    assert float(truth.norm()) > 1e-4
    for name in replaying(family):
        found = expected_update(registry.build("objective", name, REPLAYING[name]), given, given.rollouts)
        assert distance(found, truth) < TOLERANCE.get(name, 1e-10), name


@EACH
def test_without_the_draws_that_nobody_reads_it_is_not(family: str, sampler: str, options: dict) -> None:
    """What would be left of the gradient if only visible tokens were scored."""
    given = paths(family, sampler, options)
    truth = -gradient((given.log_probs.exp() * given.rewards).sum(), given)
    visible = replace(given.rollouts, completion_mask=given.policy.canvas.visible(given.completions.ids))
    for name in replaying(family):
        found = expected_update(registry.build("objective", name, REPLAYING[name]), given, visible)
        assert distance(found, truth) > 0.05, name


@EACH
def test_draws_behind_an_end_that_stands_are_read_by_later_ones(family: str, sampler: str, options: dict) -> None:
    """They change no text by themselves, but leaving them out is exact for a row's last draws only."""
    given = paths(family, sampler, options)
    record, eos_id = given.completions.trajectory, given.policy.canvas.eos_id
    if record.canvases is None or record.time is not None:
        return
    before = record.states(record.commit_step.clamp(min=0).T.contiguous())
    stood = torch.stack([(before[i, :, :i] == eos_id).any(1) for i in range(len(before))], dim=1)
    truth = -gradient((given.log_probs.exp() * given.rewards).sum(), given)
    fewer = replace(given.rollouts, completion_mask=given.rollouts.completion_mask & ~stood)
    is_equal = torch.equal(fewer.completion_mask, given.rollouts.completion_mask)
    objective = registry.build("objective", "cj_grpo", REPLAYING["cj_grpo"])
    assert (distance(expected_update(objective, given, fewer), truth) < 1e-10) == is_equal


def replaying(family: str) -> list[str]:
    return [name for name in REPLAYING if family in families_of(registry.get("objective", name))]


def test_every_replaying_objective_is_tested() -> None:
    found = {name for name, cls in registry.items("objective") if cls.replays is not Replays.NONE}
    assert found == set(REPLAYING)
