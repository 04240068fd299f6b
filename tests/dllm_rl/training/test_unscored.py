"""The share of path entropy on draws that nothing scores: 0 where all are, and what is left out where some are not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dllm_rl import registry
from dllm_rl.testing.policies import prompts_of, random_policy, sampled
from dllm_rl.training.unscored import unscored_entropy_share
from tests.samplers.grammar.test_forced import rollouts_of


@pytest.mark.parametrize("family", ["autoregressive", "masked", "block", "slot", "flow"])
def test_visible_tokens_alone_would_leave_much_unscored(family: str) -> None:
    policy, rollouts = sampled(family)
    record = rollouts.trajectory
    assert record is not None
    assert unscored_entropy_share(rollouts) < 0.02
    visible = policy.canvas.visible(rollouts.completion_ids)
    share = unscored_entropy_share(replace(rollouts, completion_mask=visible))
    if family != "flow":
        entropy = torch.where(rollouts.valid[:, None], record.entropy, 0.0)
        assert share == pytest.approx(float(entropy[~visible].sum() / entropy.sum()), rel=1e-4)
    assert share > 0.02


def test_replaying_some_steps_leaves_nothing_out_and_scoring_half_of_a_step_does() -> None:
    policy = random_policy("masked")
    prompts = prompts_of(policy, range(6))
    sampler = registry.get("sampler", "low_confidence")(num_steps=4)
    rollouts = rollouts_of(prompts, sampler.generate(policy, prompts, seed=0))
    views = policy.process.replay(rollouts, torch.Generator().manual_seed(0), num_steps=2)
    assert unscored_entropy_share(rollouts, views) < 0.02
    fewer = replace(views, score=views.score & (torch.arange(views.score.shape[-1]) % 2 == 0))
    assert unscored_entropy_share(rollouts, fewer) > 0.2


@pytest.mark.parametrize("num_steps", [None, 2])
def test_replaying_does_not_hide_draws_that_no_step_scores(num_steps: int | None) -> None:
    """The last step's draws are not scored, so no view replays it."""
    policy = random_policy("masked")
    prompts = prompts_of(policy, range(6))
    sampler = registry.get("sampler", "low_confidence")(num_steps=4)
    rollouts = rollouts_of(prompts, sampler.generate(policy, prompts, seed=0))
    assert rollouts.trajectory is not None
    is_last = rollouts.trajectory.commit_step == rollouts.trajectory.num_steps - 1
    rollouts = replace(rollouts, completion_mask=rollouts.completion_mask & ~is_last)
    views = policy.process.replay(rollouts, torch.Generator().manual_seed(0), num_steps=num_steps)
    alone = unscored_entropy_share(rollouts)
    assert alone > 0.1
    assert unscored_entropy_share(rollouts, views) == pytest.approx(alone)


def test_draws_that_were_taken_back_are_not_scored() -> None:
    policy = random_policy("masked")
    prompts = prompts_of(policy, range(6))
    out = registry.get("sampler", "remdm")().generate(policy, prompts, seed=0)
    assert unscored_entropy_share(rollouts_of(prompts, out)) > 0.02
