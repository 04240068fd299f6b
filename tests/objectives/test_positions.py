"""Where positions are drawn by the policy's own probabilities, the policy gradient needs their terms, and MAP has it.

All paths of `soft_threshold` on three columns are enumerated: every token, and every coin. Legend: b paths, l canvas.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.records.trajectory import join_trajectories
from dllm_rl.records.types import Prompts
from tests.examples import example
from tests.objectives.paths import Paths, enumerated, rollouts_of, small_policy
from tests.objectives.test_exact import distance, expected_update, gradient

LENGTH = 3
OPTIONS = {"threshold": 0.4, "spread": 0.7}
# The prompt has one token. `from_prompt` counts it, so that the first block of the canvas is one column shorter.
CASES = [
    ("masked", {}),
    ("block", {}),
    ("masked", {"block_length": 2}),
    ("block", {"prompt_blocks": "from_prompt"}),
    ("block", {"prompt_blocks": "from_prompt", "block_size": LENGTH}),
]
EACH = pytest.mark.parametrize(("family", "more"), CASES, ids=str)


@functools.cache
def _paths(family: str, more: tuple[tuple[str, Any], ...]) -> Paths:
    options = {key: value for key, value in more if key == "block_length"}
    facts = {key: value for key, value in more if key not in options}
    sampler = registry.build("sampler", "soft_threshold", {**OPTIONS, **options})
    found = enumerated(small_policy(family, length=LENGTH, **facts), sampler, num_coin_steps=LENGTH - 1)
    size = options.get("block_length") or (found.policy.facts.block_size if family == "block" else LENGTH)
    block = (torch.arange(LENGTH) + int("prompt_blocks" in facts)) // size
    return replace(found, log_probs=path_log_probs(found, block))


def paths(family: str, more: dict[str, Any]) -> Paths:
    return _paths(family, tuple(more.items()))


def path_log_probs(found: Paths, block: Tensor) -> Tensor:
    """Of every token and every coin, step by step: what the rule says, from the policy's logits at the states.

    block: the number of the block that each column lies in.
    """
    policy, rollouts, record = found.policy, found.rollouts, found.completions.trajectory
    prompts = Prompts(ids=rollouts.prompt_ids, mask=rollouts.prompt_mask, row_ids=torch.arange(rollouts.num_rows))
    total = torch.zeros(rollouts.num_rows, dtype=torch.float64)
    written = record.states(record.events.end[None])[0]
    threshold = math.log(OPTIONS["threshold"] / (1 - OPTIONS["threshold"]))
    for step in range(record.num_steps):
        state, chosen = record.canvases[:, step], record.commit_step == step
        log_p = policy.logits(prompts, state).log_softmax(-1)
        best = log_p.amax(-1)
        odds = best - torch.log1p(-best.exp())
        active = block == torch.where(chosen, block, -1).amax(1, keepdim=True)
        is_open = (state == policy.mask_id) & active
        is_best = torch.arange(LENGTH) == odds.masked_fill(~is_open, -torch.inf).argmax(1, keepdim=True)
        chance = torch.sigmoid((odds - threshold) / OPTIONS["spread"])
        token = log_p.gather(-1, written.clamp(min=0)[..., None]).squeeze(-1)
        coin = torch.where(is_best, 0.0, torch.where(chosen, chance.log(), (1 - chance).log()))
        total = total + torch.where(is_open, coin + torch.where(chosen, token, 0.0), 0.0).sum(1)
    return total


@EACH
def test_the_paths_are_all(family: str, more: dict[str, Any]) -> None:
    given = paths(family, more)
    assert float(given.log_probs.detach().exp().sum()) == pytest.approx(1.0, abs=1e-8)
    assert given.rollouts.trajectory.position_law is not None


@EACH
def test_positions_and_tokens_together_have_the_gradient_of_the_expected_reward(family: str, more: dict) -> None:
    given = paths(family, more)
    truth = -gradient((given.log_probs.exp() * given.rewards).sum(), given)
    assert float(truth.norm()) > 1e-4
    map_grpo = registry.build("objective", "mask_aware_grpo", {"num_steps": None})
    tokens_alone = registry.build("objective", "cj_grpo", {"num_steps": None, "beta": 0.0})
    assert distance(expected_update(map_grpo, given, given.rollouts), truth) < 1e-6
    assert distance(expected_update(tokens_alone, given, given.rollouts), truth) > 0.02


def test_prompts_of_other_lengths_have_blocks_of_their_own() -> None:
    """Rows whose blocks begin at other columns are written apart and scored together, as each is by itself."""
    policy = small_policy("block", length=6, prompt_blocks="from_prompt")
    mask = torch.tensor([[False, True], [True, True], [False, True], [True, True]])
    prompts = Prompts(ids=torch.full((4, 2), 4), mask=mask, row_ids=torch.arange(4))
    drawn = registry.build("sampler", "soft_threshold", OPTIONS).generate(policy, prompts, seed=1)
    assert not drawn.trajectory.hides_order
    rollouts = rollouts_of(prompts, drawn)
    objective = registry.build("objective", "mask_aware_grpo", {"num_steps": None})

    def decided(rows: Tensor) -> Tensor:
        """Log-probability of all that was decided, in each row."""
        views = objective.views(rollouts.rows(rows), policy.process, torch.Generator())
        return (policy.view_log_probs(rollouts.rows(rows), views) * views.score).sum((0, 2))

    apart = [decided(torch.tensor([row])) for row in range(4)]
    torch.testing.assert_close(decided(torch.arange(4)), torch.cat(apart), rtol=1e-4, atol=1e-4)
    recorded = drawn.trajectory.log_probs.sum(1)
    assert (torch.cat(apart) < recorded - 1e-3).all(), "coins were decided beside the tokens"


def test_a_record_of_rows_under_several_laws_says_none() -> None:
    policy = small_policy("masked", length=LENGTH)
    prompts = Prompts(ids=torch.full((2, 1), 4), mask=torch.ones(2, 1, dtype=torch.bool), row_ids=torch.arange(2))
    several = [{}, {"spread": 0.5}, {"num_steps": 3}]
    soft, other, hiding = (
        registry.build("sampler", "soft_threshold", {**OPTIONS, **more}).generate(policy, prompts, seed=0).trajectory
        for more in several
    )
    same = join_trajectories([soft, soft])
    assert (same.position_law, same.hides_order) == (soft.position_law, False)
    for parts in ([soft, other], [soft, hiding], [hiding, soft]):
        joined = join_trajectories(parts)
        assert (joined.position_law, joined.hides_order) == (None, True)


def test_where_no_position_is_drawn_it_is_cj_grpo() -> None:
    item = example("masked")
    one = registry.build("objective", "mask_aware_grpo", {"num_steps": 2})
    two = registry.build("objective", "cj_grpo", {"num_steps": 2})
    views = [
        objective.views(item.rollouts, item.policy.process, torch.Generator().manual_seed(3))
        for objective in (one, two)
    ]
    assert views[0].equals(views[1])


def test_positions_are_drawn_by_log_odds_at_temperature_one() -> None:
    """The recorded coins are those of the untempered distribution, also where tokens are drawn at another."""
    policy = small_policy("masked", length=LENGTH)
    sampler = registry.build("sampler", "soft_threshold", {**OPTIONS}, temperature=0.5)
    prompts = Prompts(ids=torch.full((1, 1), 4), mask=torch.ones(1, 1, dtype=torch.bool), row_ids=torch.zeros(1).long())
    drawn = sampler.generate(policy, prompts, seed=0)
    given = enumerated(policy, registry.build("sampler", "soft_threshold", OPTIONS), num_coin_steps=LENGTH - 1)
    tempered = replace(given.rollouts, temperature=0.5)
    process, weight = given.policy.process, torch.ones(1, given.rollouts.num_rows)
    first = torch.zeros(1, given.rollouts.num_rows, dtype=torch.long)
    terms = [
        given.policy.view_log_probs(rollouts, process.replay_positions(rollouts, first, weight))[0]
        for rollouts in (given.rollouts, tempered)
    ]
    stayed = (given.rollouts.trajectory.commit_step > 0) & (terms[0] != 0)
    assert bool(stayed.any())
    torch.testing.assert_close(terms[1][stayed], terms[0][stayed], rtol=1e-5, atol=1e-6)
    assert drawn.trajectory.position_law == given.rollouts.trajectory.position_law


@pytest.mark.parametrize(("name", "options"), [("annealed", {}), ("soft_threshold", {"num_steps": 3})])
def test_positions_of_unknown_probability_are_refused(name: str, options: dict[str, Any]) -> None:
    policy = small_policy("masked")
    prompts = Prompts(ids=torch.full((2, 1), 4), mask=torch.ones(2, 1, dtype=torch.bool), row_ids=torch.arange(2))
    drawn = registry.build("sampler", name, options).generate(policy, prompts, seed=0)
    rollouts = replace(example("masked").rollouts.rows(torch.tensor([0, 1])), trajectory=drawn.trajectory)
    rollouts = replace(rollouts, completion_ids=drawn.as_drawn, completion_mask=drawn.mask)
    objective = registry.build("objective", "mask_aware_grpo")
    with pytest.raises(ConfigError, match="does not record"):
        objective.views(rollouts, policy.process, torch.Generator().manual_seed(0))
