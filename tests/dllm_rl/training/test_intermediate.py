"""Intermediate answers belong to their row alone: neither idle steps nor the rows beside it change them."""

from __future__ import annotations

import pytest
import torch

from dllm_rl import registry
from dllm_rl.reward import FromFunction
from dllm_rl.training.engine import RolloutEngine
from dllm_rl.training.intermediate import _drawn, draw_answers, with_step_rewards
from tests.dllm_rl.training.test_trainer import TASKS, CountingEnvironment, rollouts_of, share_of_e
from tests.tiny_policies import make_tiny_policy


@pytest.fixture(scope="module")
def idle():
    """A policy, and rollouts in which rows stand still in some steps of others."""
    policy = make_tiny_policy("masked", sharpness=4.0)
    sampler = registry.build("sampler", "ancestral", num_steps=24)
    engine = RolloutEngine(
        policy=policy, sampler=sampler, environment=CountingEnvironment(), reward=FromFunction(share_of_e)
    )
    return policy, rollouts_of(engine, TASKS)


def test_an_idle_step_is_neither_scored_nor_a_gain(idle):
    policy, rollouts = idle
    tasks = [task for task in TASKS for _ in range(2)]
    mask = policy.tokenizer.mask_token

    def score(pairs):
        assert not any(mask in text for _, text in pairs), "a canvas with open positions was scored"
        return [len(text) / 1000 for _, text in pairs]

    answered = with_step_rewards(policy, rollouts, tasks, score, torch.Generator().manual_seed(0)).rollouts
    assert answered.answers is not None and answered.step_rewards is not None
    asked, rewards, canvases = answered.answers.is_asked, answered.step_rewards, rollouts.trajectory.canvases
    changed = (canvases[:, 1:] != canvases[:, :-1]).any(-1)
    assert torch.equal(asked | (torch.arange(changed.shape[1]) == 0), changed | (torch.arange(changed.shape[1]) == 0))
    steps = torch.arange(changed.shape[1])
    last = (changed * steps).amax(1, keepdim=True)
    is_idle = ~asked & (steps > 0) & (steps < last)
    assert is_idle.any(), "the sampler must idle"
    before = torch.nn.functional.pad(rewards, (1, 0))[:, :-1]
    assert torch.equal(rewards[is_idle], before[is_idle])
    assert torch.equal(rewards[steps >= last], rollouts.rewards[:, None].expand_as(rewards)[steps >= last])


def test_answers_do_not_depend_on_which_rows_are_asked_together(idle):
    policy, rollouts = idle
    one, all_ = (draw_answers(policy, rollouts, torch.Generator().manual_seed(3), batch_rows=size) for size in (1, 32))
    assert torch.equal(one.ids, all_.ids)
    torch.testing.assert_close(one.confidence, all_.confidence)


def test_an_answer_has_the_probabilities_of_its_distribution():
    probabilities = torch.tensor([0.1, 0.0, 0.2, 0.7, 0.0]).expand(1000, 1, -1)
    noise = ((torch.arange(1000) + 0.5) / 1000)[:, None].double()
    assert torch.bincount(_drawn(probabilities, noise).flatten(), minlength=5).tolist() == [100, 0, 200, 700, 0]
