"""A text-only toy for learning tests: sort four letters, on a policy of one layer, in a fraction of a second.

The answer to `d b a b` is `a b b d EOS`. Every family writes with a sampler that explores: the masked one
in random order, the others with their usual one. Reward: share of the five places
that are right. A policy is warm-started until about half of its places are right.
Legend: b rows, l canvas, s steps.
"""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from dllm_rl import registry
from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.types import Prompts, Rollouts
from dllm_rl.training.intermediate import draw_answers
from dllm_rl.training.warmstart import Batch
from tests.examples import EOS, LETTERS, PAD, example_policy
from tests.objectives.losses import loss_of

NUM_LETTERS, LENGTH = 4, 6
NUM_PLACES = NUM_LETTERS + 1
NUM_STEPS = 4
# Rules that write first what they are surest of leave too little to chance for a few steps of learning.
EXPLORING = {"masked": ("random", {"num_steps": LENGTH})}
# Fewer draws than by default, which are meant for canvases of a hundred columns; a gradient has more noise with them.
OPTIONS = {"agrpo": {"num_steps": 8}, "bgpo": {"num_draws": 4}}
WARM_STEPS = {"autoregressive": 25, "masked": 35, "block": 35, "slot": 45, "flow": 40}


def warm_policy(family: str, seed: int) -> BasePolicy:
    """A policy that gets part of the places right."""
    policy = example_policy(family, length=LENGTH, seed=seed, sharpness=0.5)
    generator = torch.Generator().manual_seed(1000 + seed)
    optimiser = torch.optim.Adam(policy.model.parameters(), lr=0.02)
    for _ in range(WARM_STEPS[family]):
        shown, _ = prompts(32, 1, generator)
        loss = policy.process.warm_start_loss(policy, Batch(prompts=shown, canvas=gold(shown)), generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return policy


def prompts(num_groups: int, group_size: int, generator: torch.Generator) -> tuple[Prompts, Tensor]:
    """Prompts of four letters, the same in a group, and group ids."""
    letters = torch.tensor(LETTERS)[torch.randint(4, (num_groups, NUM_LETTERS), generator=generator)]
    ids = letters.repeat_interleave(group_size, 0)
    rows = torch.arange(len(ids))
    return Prompts(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool), row_ids=rows), rows // group_size


def gold(prompts: Prompts) -> Tensor:
    """The sorted letters, EOS, and padding."""
    answer = torch.full((len(prompts.ids), LENGTH), PAD)
    answer[:, :NUM_LETTERS] = prompts.ids.sort(-1).values
    answer[:, NUM_LETTERS] = EOS
    return answer


def sampler(policy: BasePolicy) -> Any:
    """The sampler that this family is trained and judged with here."""
    if policy.family in EXPLORING:
        name, options = EXPLORING[policy.family]
        return registry.get("sampler", name)(**options)
    cls = registry.get("sampler", policy.usual_sampler)
    return cls(**({"num_steps": NUM_STEPS} if "num_steps" in {field.name for field in fields(cls)} else {}))


def sample(policy: BasePolicy, generator: torch.Generator, *, num_groups: int = 8, group_size: int = 8) -> Rollouts:
    """Completions with their rewards."""
    asked, group_ids = prompts(num_groups, group_size, generator)
    drawn = sampler(policy).generate(policy, asked, seed=int(torch.randint(2**31, (), generator=generator)))
    valid = torch.ones(len(drawn.ids), dtype=torch.bool)
    return Rollouts(
        prompt_ids=asked.ids,
        prompt_mask=asked.mask,
        completion_ids=drawn.as_drawn,
        completion_mask=drawn.mask,
        rewards=share_right(drawn.ids, gold(asked)),
        group_ids=group_ids,
        valid=valid,
        trajectory=drawn.trajectory,
        totals=Rollouts.count_totals(valid, group_ids, drawn.mask),
    )


def with_step_rewards(policy: BasePolicy, rollouts: Rollouts, generator: torch.Generator) -> Rollouts:
    """The rollouts with the predictions of every step and their rewards."""
    answers = draw_answers(policy, rollouts, generator, batch_rows=rollouts.num_rows)
    right = Prompts(ids=rollouts.prompt_ids, mask=rollouts.prompt_mask, row_ids=torch.arange(rollouts.num_rows))
    step_rewards = share_right(answers.ids, gold(right)[:, None])
    step_rewards[:, -1] = rollouts.rewards
    return replace(rollouts, answers=answers, step_rewards=step_rewards)


def share_right(ids: Tensor, answer: Tensor) -> Tensor:
    """Share of the places that are right."""
    return (ids == answer)[..., :NUM_PLACES].float().mean(-1)


def shuffled_rewards(rollouts: Rollouts) -> Rollouts:
    """The same rewards on other rows."""
    order = torch.randperm(rollouts.num_rows, generator=torch.Generator().manual_seed(rollouts.num_rows))
    return replace(rollouts, rewards=rollouts.rewards[order])


def mean_reward(policy: BasePolicy, *, seed: int = 100) -> float:
    """Mean reward of fresh samples on prompts that are the same for every policy."""
    return float(sample(policy, torch.Generator().manual_seed(seed), num_groups=64, group_size=4).rewards.mean())


def train(policy: BasePolicy, name: str, *, learning_rate: float, seed: int, num_steps: int) -> None:
    """Outer steps of 8 prompts x 8 rollouts, two inner steps a batch where the method allows it, no penalty."""
    reference = copy.deepcopy(policy)
    objective = registry.get("objective", name)(beta=0.0, **OPTIONS.get(name, {}))
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(policy.model.parameters(), lr=learning_rate)
    for _ in range(num_steps):
        rollouts = sample(policy, generator)
        if {"step_rewards", "answers"} & set(objective.requires) and rollouts.trajectory.keeps_states:
            rollouts = with_step_rewards(policy, rollouts, generator)
        views = [
            objective.views(rollouts, policy.process, generator) for inner in range(objective.max_inner_steps or 2)
        ]
        with torch.no_grad():
            olds = [policy.view_log_probs(rollouts, view) for view in views]
            refs = [reference.view_log_probs(rollouts, view) if objective.needs_ref else None for view in views]
        for view, old, ref in zip(views, olds, refs, strict=True):
            optimiser.zero_grad()
            new = policy.view_log_probs(rollouts, view)
            loss_of(objective, rollouts, view, new, old, ref).value.backward()
            optimiser.step()
