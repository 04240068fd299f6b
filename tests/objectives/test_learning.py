"""Every method learns: on a toy of each family it finds the rewarded letter; without updates it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_rl import registry
from dllm_rl.testing import ToyPolicy, toy_rollouts
from dllm_rl.testing.toys import EOS, FILL, LETTERS, MASK, NUM_STEPS, PAD, SLOT_SIZE
from dllm_rl.types import Answers, Rollouts, Trajectory, Views

CASES = [(name, family) for name, cls in registry.items("objective") for family in cls.families]
LETTER, LENGTH, STEPS, MARGIN = LETTERS[0], 6, 30, 0.3
NEGATIVE_CONTROL = "espo_unshared"


def sample(policy: ToyPolicy, generator: torch.Generator, num_groups: int = 4, group_size: int = 8) -> Rollouts:
    """Completions of the family's own sampler; reward is the share of the canvas that holds the letter before EOS."""
    base = toy_rollouts(policy, num_groups=num_groups, group_size=group_size)
    with torch.no_grad():
        canvases, commit, orders, time = WRITERS[policy.family](policy, base, generator)
    ids = canvases[:, -1]
    is_eos = ids == EOS
    is_tail = is_eos.cumsum(-1) - is_eos.long() > 0
    mask = ~is_tail & (ids != FILL)
    zeros = torch.zeros(ids.shape)
    rewards = ((ids == LETTER) & mask).float().mean(-1)
    has_states = policy.family != "autoregressive"
    valid = torch.ones(len(ids), dtype=torch.bool)
    return replace(
        base,
        completion_ids=torch.where(is_tail, PAD, ids),
        completion_mask=mask,
        rewards=rewards,
        valid=valid,
        trajectory=Trajectory(
            canvases=canvases if has_states else None,
            time=time,
            commit_step=commit,
            log_probs=zeros,
            entropy=zeros,
            order=orders,
        ),
        totals=Rollouts.count_totals(valid, base.group_ids, mask),
        **intermediate(policy, base, canvases, orders, time, rewards, generator),
    )


def intermediate(policy, base, canvases, orders, time, rewards, generator) -> dict[str, Any]:
    """Answers of every step and their rewards, as the trainer records them for objectives that require them."""
    if policy.family == "autoregressive":
        return {}
    ids, score, confidence = [], [], []
    for step in range(canvases.shape[1] - 1):
        before, after = canvases[:, step], canvases[:, step + 1]
        facts = {} if orders is None else {"order": orders[None, :, step]}
        facts |= {} if time is None else {"time": time[step].expand(1, base.num_rows)}
        with torch.no_grad():
            tokens = draw(policy, base, before, generator, **facts)
        if policy.family != "flow":
            tokens = torch.where((before == MASK) & (after == MASK), tokens, after)
        is_tail = (tokens == EOS).cumsum(-1) - (tokens == EOS).long() > 0
        ids.append(tokens)
        score.append((before != tokens) & ~is_tail & (tokens != FILL))
        confidence.append(score[-1].float())
    answers = Answers(ids=torch.stack(ids, 1), score=torch.stack(score, 1), confidence=torch.stack(confidence, 1))
    step_rewards = ((answers.ids == LETTER) & (answers.score | (canvases[:, :-1] == LETTER))).float().mean(-1)
    step_rewards[:, -1] = rewards
    return {"answers": answers, "step_rewards": step_rewards}


def draw(policy: ToyPolicy, base: Rollouts, canvas: Tensor, generator: torch.Generator, **facts: Any) -> Tensor:
    """One token for every column, from the distribution at this canvas."""
    score = torch.ones(1, *canvas.shape, dtype=torch.bool)
    view = Views(kind="one_step", tokens=canvas[None], score=score, weight=score.float(), **facts)
    probabilities = policy.distribution(base, view)[0].exp()
    return torch.multinomial(probabilities.flatten(0, 1), 1, generator=generator).view(canvas.shape)


def write_left_to_right(policy: ToyPolicy, base: Rollouts, generator: torch.Generator):
    canvas = torch.full((base.num_rows, LENGTH), PAD)
    for column in range(LENGTH):
        canvas[:, column] = draw(policy, base, canvas, generator)[:, column]
    return canvas[:, None], torch.arange(LENGTH).expand_as(canvas), None, None


def write_by_unit(policy: ToyPolicy, base: Rollouts, generator: torch.Generator):
    """Masked: one column a step in random order. Slot: one slot a step, committed slots fed first."""
    size = SLOT_SIZE if policy.family == "slot" else 1
    rank = torch.rand(base.num_rows, LENGTH // size, generator=generator).argsort(-1)
    commit = rank.repeat_interleave(size, -1)
    canvas = torch.full((base.num_rows, LENGTH), MASK)
    canvases, orders = [canvas], []
    for step in range(LENGTH // size + 1):
        key = torch.where(commit < step, commit, LENGTH + torch.arange(LENGTH) // size)
        orders.append(key.argsort(dim=-1, stable=True))
        if step < LENGTH // size:
            tokens = draw(policy, base, canvas, generator, order=orders[-1][None])
            canvas = torch.where(commit == step, tokens, canvas)
            canvases.append(canvas)
    order = torch.stack(orders, 1) if policy.family == "slot" else None
    return torch.stack(canvases, 1), commit, order, None


def write_by_flow(policy: ToyPolicy, base: Rollouts, generator: torch.Generator):
    time = torch.linspace(0, 1, NUM_STEPS + 1)
    allowed = torch.tensor((EOS, FILL, *LETTERS))
    canvas = allowed[torch.randint(6, (base.num_rows, LENGTH), generator=generator)]
    canvases = [canvas]
    for now, after in zip(time[:-1].tolist(), time[1:].tolist(), strict=True):
        tokens = draw(policy, base, canvas, generator, time=torch.full((1, base.num_rows), now))
        jumps = torch.rand(canvas.shape, generator=generator) < 1 - (1 - after) / (1 - now)
        canvas = torch.where(jumps, tokens, canvas)
        canvases.append(canvas)
    return torch.stack(canvases, 1), torch.full_like(canvas, NUM_STEPS - 1), None, time


WRITERS = {
    "autoregressive": write_left_to_right,
    "masked": write_by_unit,
    "slot": write_by_unit,
    "flow": write_by_flow,
}


def gain(name: str, family: str, *, learning_rate: float, seed: int = 1) -> float:
    """Mean reward of fresh samples after training, two inner steps a batch where allowed, less that before."""
    policy = ToyPolicy(family, seed=seed, sharpness=0.5)
    objective = registry.get("objective", name)(beta=0.0)
    generator = torch.Generator().manual_seed(seed)
    before = mean_reward(policy, 100)
    optimiser = torch.optim.Adam(policy.model.parameters(), lr=learning_rate)
    for _ in range(STEPS):
        rollouts = sample(policy, generator)
        advantages = objective.advantages(rollouts)
        views = [
            objective.views(rollouts, policy.corruption, generator, inner)
            for inner in range(objective.max_inner_steps or 2)
        ]
        olds = [policy.view_log_probs(rollouts, view).detach() for view in views]
        for view, old in zip(views, olds, strict=True):
            new = policy.view_log_probs(rollouts, view)
            optimiser.zero_grad()
            objective.loss(rollouts, view, new, old, None, advantages).value.backward()
            optimiser.step()
    return mean_reward(policy, 100) - before


def mean_reward(policy: ToyPolicy, seed: int) -> float:
    return float(sample(policy, torch.Generator().manual_seed(seed), num_groups=16).rewards.mean())


@pytest.mark.parametrize(("name", "family"), [case for case in CASES if case[0] != NEGATIVE_CONTROL])
def test_it_learns(name: str, family: str) -> None:
    assert gain(name, family, learning_rate=0.02) > MARGIN


@pytest.mark.parametrize("family", registry.get("objective", NEGATIVE_CONTROL).families)
def test_the_negative_control_learns_less_than_what_it_spoils(family: str) -> None:
    assert gain(NEGATIVE_CONTROL, family, learning_rate=0.02) < gain("espo", family, learning_rate=0.02)


@pytest.mark.parametrize("family", sorted(WRITERS))
def test_a_no_op_does_not(family: str) -> None:
    assert gain("grpo", family, learning_rate=0.0) == 0
