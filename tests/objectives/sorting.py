"""A text-only toy for learning tests: sort four letters, on a policy of one layer, in a fraction of a second.

The answer to `d b a b` is `a b b d EOS`. Every family has the sampler that its trajectories belong to. Reward: share of
the five places that are right. A policy is warm-started until about half of its places are right.
Legend: b rows, l canvas, s steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dllm_rl import registry
from dllm_rl import views as v
from dllm_rl.events import events_of_states
from dllm_rl.testing import ToyPolicy, toy_rollouts
from dllm_rl.testing.joined import joined_slots
from dllm_rl.testing.toys import EOS, FILL, LETTERS, MASK, NUM_STEPS, PAD, SLOT_SIZE
from dllm_rl.trajectory import Trajectory
from dllm_rl.types import Answers, Rollouts, Views
from tests.objectives.losses import loss_of

NUM_LETTERS, LENGTH = 4, 6
NUM_PLACES = NUM_LETTERS + 1
WARM_STEPS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorting:
    """One family's task with a random stream of its own; prompts come in groups."""

    family: str
    seed: int

    def warm_policy(self) -> ToyPolicy:
        """A policy that gets part of the places right."""
        policy = ToyPolicy(self.family, length=LENGTH, seed=self.seed, sharpness=0.5)  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(1000 + self.seed)
        optimiser = torch.optim.Adam(policy.model.parameters(), lr=0.02)
        for _ in range(WARM_STEPS):
            shown = demonstrations(policy, generator)
            views = replace(v.elbo(shown, policy.process, generator, num_draws=1), weight=torch.ones(()))
            if self.family == "flow":
                views = replace(views, kind="one_step")
            loss = -policy.view_log_probs(shown, views).sum() / views.score.sum().clamp(min=1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return policy


def prompts(num_groups: int, group_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Prompt ids (b, 4), the same in a group, and group ids."""
    letters = torch.tensor(LETTERS)[torch.randint(4, (num_groups, NUM_LETTERS), generator=generator)]
    return letters.repeat_interleave(group_size, 0), torch.arange(num_groups).repeat_interleave(group_size)


def gold(prompt_ids: Tensor) -> Tensor:
    """The sorted letters, EOS, and padding."""
    answer = torch.full((len(prompt_ids), LENGTH), PAD)
    answer[:, :NUM_LETTERS] = prompt_ids.sort(-1).values
    answer[:, NUM_LETTERS] = EOS
    return answer


def batch(policy: ToyPolicy, prompt_ids: Tensor, group_ids: Tensor, ids: Tensor, trajectory: Any) -> Rollouts:
    """Rollouts of these completions with their rewards."""
    is_eos = ids == EOS
    is_tail = is_eos.cumsum(-1) - is_eos.long() > 0
    mask = ~is_tail & (ids != FILL)
    valid = torch.ones(len(ids), dtype=torch.bool)
    ids = torch.where(is_tail, PAD, ids)
    right = (ids == gold(prompt_ids))[:, :NUM_PLACES]
    return replace(
        toy_rollouts(policy, num_groups=1, group_size=2),
        prompt_ids=prompt_ids,
        prompt_mask=torch.ones_like(prompt_ids, dtype=torch.bool),
        completion_ids=ids,
        completion_mask=mask,
        rewards=right.float().mean(-1),
        group_ids=group_ids,
        valid=valid,
        trajectory=trajectory,
        totals=Rollouts.count_totals(valid, group_ids, mask),
        step_rewards=None,
        answers=None,
    )


def demonstrations(policy: ToyPolicy, generator: torch.Generator) -> Rollouts:
    """Prompts with their gold answers."""
    prompt_ids, group_ids = prompts(32, 1, generator)
    return batch(policy, prompt_ids, group_ids, gold(prompt_ids), None)


def sample(policy: ToyPolicy, generator: torch.Generator, *, num_groups: int = 8, group_size: int = 8) -> Rollouts:
    """Completions of the family's own sampler, with answers of every step and their rewards."""
    prompt_ids, group_ids = prompts(num_groups, group_size, generator)
    blank = batch(policy, prompt_ids, group_ids, gold(prompt_ids), None)
    with torch.no_grad():
        canvases, commit, time = WRITERS[policy.family](policy, blank, generator)
    zeros = torch.zeros(commit.shape)
    events = events_of_states(canvases, commit, zeros, zeros, mask_id=policy.process.mask_id)
    trajectory = Trajectory(
        events=replace(events, initial=None) if policy.family == "autoregressive" else events,
        num_steps=canvases.shape[1] - 1,
        time=time,
        slot_size=SLOT_SIZE if policy.family == "slot" else None,
        slot_joined=joined_slots(events, SLOT_SIZE) if policy.family == "slot" else None,
    )
    rollouts = batch(policy, prompt_ids, group_ids, canvases[:, -1], trajectory)
    return rollouts if policy.family == "autoregressive" else _with_answers(policy, rollouts, generator)


def _with_answers(policy: ToyPolicy, rollouts: Rollouts, generator: torch.Generator) -> Rollouts:
    """Answers of every step and their rewards, as the trainer records them for objectives that require them."""
    recorded = rollouts.trajectory
    assert recorded is not None and recorded.canvases is not None
    ids, score = [], []
    for step in range(recorded.num_steps):
        before, after = recorded.canvases[:, step], recorded.canvases[:, step + 1]
        facts: dict[str, Any] = {} if recorded.order is None else {"order": recorded.order[None, :, step]}
        facts |= {} if recorded.time is None else {"time": recorded.time[step].expand(1, rollouts.num_rows)}
        with torch.no_grad():
            tokens = draw(policy, rollouts, before, generator, **facts)
        if policy.family != "flow":
            tokens = torch.where((before == MASK) & (after == MASK), tokens, after)
        is_tail = (tokens == EOS).cumsum(-1) - (tokens == EOS).long() > 0
        ids.append(torch.where(is_tail, PAD, tokens))
        score.append((before != tokens) & ~is_tail & (tokens != FILL))
    answers = Answers(ids=torch.stack(ids, 1), score=torch.stack(score, 1), confidence=torch.stack(score, 1).float())
    right = (answers.ids == gold(rollouts.prompt_ids)[:, None])[..., :NUM_PLACES]
    step_rewards = right.float().mean(-1)
    step_rewards[:, -1] = rollouts.rewards
    return replace(rollouts, answers=answers, step_rewards=step_rewards)


def draw(policy: ToyPolicy, rollouts: Rollouts, canvas: Tensor, generator: torch.Generator, **facts: Any) -> Tensor:
    """One token for every column, from the distribution at this canvas."""
    score = torch.ones(1, *canvas.shape, dtype=torch.bool)
    view = Views(kind="one_step", tokens=canvas[None], score=score, weight=score.float(), **facts)
    # A family that also reads a clean copy of earlier columns must read what is written, not the answer.
    probabilities = policy.distribution(replace(rollouts, completion_ids=canvas), view)[0].exp()
    return torch.multinomial(probabilities.flatten(0, 1), 1, generator=generator).view(canvas.shape)


def write_left_to_right(policy: ToyPolicy, blank: Rollouts, generator: torch.Generator):
    canvas = torch.full((blank.num_rows, LENGTH), PAD)
    canvases = [canvas]
    for column in range(LENGTH):
        canvas = canvas.clone()
        canvas[:, column] = draw(policy, blank, canvas, generator)[:, column]
        canvases.append(canvas)
    return torch.stack(canvases, 1), torch.arange(LENGTH).repeat(blank.num_rows, 1), None


def write_by_unit(policy: ToyPolicy, blank: Rollouts, generator: torch.Generator):
    """One column a step in random order; block by block, or (slot) one slot a step, committed slots fed first."""
    size = SLOT_SIZE if policy.family == "slot" else 1
    block = torch.arange(LENGTH // size) // (policy.process.block_size or LENGTH)
    key = block + torch.rand(blank.num_rows, LENGTH // size, generator=generator)
    commit = key.argsort(-1).argsort(-1).repeat_interleave(size, -1)
    canvas = torch.full((blank.num_rows, LENGTH), MASK)
    canvases = [canvas]
    for step in range(LENGTH // size):
        key = torch.where(commit < step, commit, LENGTH + torch.arange(LENGTH) // size)
        order = key.argsort(dim=-1, stable=True)
        tokens = draw(policy, blank, canvas, generator, order=order[None])
        canvas = torch.where(commit == step, tokens, canvas)
        canvases.append(canvas)
    return torch.stack(canvases, 1), commit, None


def write_by_flow(policy: ToyPolicy, blank: Rollouts, generator: torch.Generator):
    time = torch.linspace(0, 1, NUM_STEPS + 1)
    allowed = torch.tensor((EOS, FILL, *LETTERS))
    canvas = allowed[torch.randint(6, (blank.num_rows, LENGTH), generator=generator)]
    canvases = [canvas]
    for now, after in zip(time[:-1].tolist(), time[1:].tolist(), strict=True):
        tokens = draw(policy, blank, canvas, generator, time=torch.full((1, blank.num_rows), now))
        jumps = torch.rand(canvas.shape, generator=generator) < 1 - (1 - after) / (1 - now)
        canvas = torch.where(jumps, tokens, canvas)
        canvases.append(canvas)
    return torch.stack(canvases, 1), torch.full_like(canvas, NUM_STEPS - 1), time


WRITERS = {
    "autoregressive": write_left_to_right,
    "masked": write_by_unit,
    "block": write_by_unit,
    "slot": write_by_unit,
    "flow": write_by_flow,
}


def shuffled_rewards(rollouts: Rollouts) -> Rollouts:
    """The same rewards on other rows."""
    order = torch.randperm(rollouts.num_rows, generator=torch.Generator().manual_seed(rollouts.num_rows))
    return replace(rollouts, rewards=rollouts.rewards[order])


def mean_reward(policy: ToyPolicy, *, seed: int = 100) -> float:
    """Mean reward of fresh samples on prompts that are the same for every policy."""
    return float(sample(policy, torch.Generator().manual_seed(seed), num_groups=64, group_size=4).rewards.mean())


def train(policy: ToyPolicy, name: str, *, learning_rate: float, seed: int, num_steps: int) -> None:
    """Outer steps of 8 prompts x 8 rollouts, two inner steps a batch where the method allows it, no penalty."""
    objective = registry.get("objective", name)(beta=0.0)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(policy.model.parameters(), lr=learning_rate)
    for _ in range(num_steps):
        rollouts = sample(policy, generator)
        views = [
            objective.views(rollouts, policy.process, generator) for inner in range(objective.max_inner_steps or 2)
        ]
        with torch.no_grad():
            olds = [policy.view_log_probs(rollouts, view) for view in views]
        for view, old in zip(views, olds, strict=True):
            optimiser.zero_grad()
            new = policy.view_log_probs(rollouts, view)
            loss_of(objective, rollouts, view, new, old).value.backward()
            optimiser.step()
