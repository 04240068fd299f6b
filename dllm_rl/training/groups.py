"""Groups of rollouts: stacked into tensors, and replaced where they teach nothing.

Dynamic sampling (DAPO, 2503.14476) replaces groups whose rewards are all equal by groups of other tasks. This costs
rollouts that other methods do not spend: a grid refuses it unless the preset declares it (`experiments.design.grid`).
Every rollout is counted and logged. The rollout metrics stay those of the first batch, which all methods share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm_rl.advantages import EQUAL_REWARDS
from dllm_rl.episodes import Situation
from dllm_rl.errors import ConfigError, HarnessError
from dllm_rl.records.rollout import Completion, Rollout
from dllm_rl.records.tasks import Task
from dllm_rl.records.types import Completions, Prompts, Rollouts, SampledRow, join_completions
from dllm_rl.training.credit import turn_facts
from dllm_rl.training.engine import RolloutBatch
from dllm_rl.training.turns import first_turns

Group = Sequence[Rollout]


def stack_rollouts(groups: Sequence[Group], *, temperature: float, pad_id: int) -> Rollouts:
    """Stack the turns of all rollouts, or the calls that they were written in, whichever batches these were drawn in.

    Prompts are padded on the left to the longest. A trajectory of fewer steps than others ends in repetitions of its
    last state, at which nothing is committed. Episodes that the environment lost are left out; a whole plan that it
    lost is a row that is not valid. Raises ConfigError where a plan was not sampled.

    Args:
        groups: Rollouts that are compared with one another.
        temperature: Of the sampler that wrote them.
    """
    is_episodic = any(rollout.outcome.ending is not None for group in groups for rollout in group)
    kept = [_valid_ones(group) for group in groups] if is_episodic else groups
    turns = [
        (number, rollout, written)
        for number, group in enumerate(kept)
        for rollout in group
        for turn in rollout.turns
        for written in turn.completion.trained
    ]
    if not turns:
        reasons = Counter(rollout.outcome.fault_reason for group in groups for rollout in group)
        said = next((reason for reason, _ in reasons.most_common() if reason), "no reason given")
        raise HarnessError(
            f"no episode of a step has a turn to learn from, most often: {said}. `dllm-rl doctor` looks at the "
            "environment."
        )
    prompt_ids, prompt_mask, completions = _stacked([_sampled(written) for _, _, written in turns], pad_id)
    valid = torch.tensor([rollout.outcome.is_valid for _, rollout, _ in turns])
    group_ids = torch.tensor([number for number, _, _ in turns])
    return Rollouts(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        completion_ids=completions.as_drawn,
        completion_mask=completions.mask,
        rewards=torch.tensor([rollout.reward.value for _, rollout, _ in turns], dtype=torch.float32),
        group_ids=group_ids,
        valid=valid,
        trajectory=completions.trajectory,
        totals=Rollouts.count_totals(valid, group_ids, completions.mask),
        temperature=temperature,
        episode_ids=_episode_ids(kept) if is_episodic else None,
        turn_facts=turn_facts([rollout for group in kept for rollout in group]) if is_episodic else None,
    )


def _valid_ones(group: Group) -> list[Rollout]:
    """Episodes that the environment did not lose: a lost one leaves the step as if it had not been drawn."""
    return [rollout for rollout in group if rollout.outcome.is_valid]


def situations(groups: Sequence[Group]) -> list[Situation]:
    """What each turn of valid episodes answered, in the order of the rows of `stack_rollouts`."""
    valid = [rollout for group in groups for rollout in _valid_ones(group)]
    return [
        Situation(row=row, task=rollout.task, turns=rollout.turns[:at], observation=turn.observation)
        for row, rollout in enumerate(valid)
        for at, turn in enumerate(rollout.turns)
    ]


def _episode_ids(groups: Sequence[Group]) -> Int[Tensor, " b"]:
    lengths = torch.tensor(
        [sum(len(turn.completion.trained) for turn in rollout.turns) for group in groups for rollout in group]
    )
    return torch.arange(len(lengths)).repeat_interleave(lengths)


def shuffle_rewards(rollouts: Rollouts, noise: torch.Generator) -> Rollouts:
    """Deal the rewards of the valid rows anew among them, or those of episodes among episodes."""
    if rollouts.episode_ids is not None:
        first, place = first_turns(rollouts.episode_ids)
        dealt = rollouts.rewards[first[torch.randperm(len(first), generator=noise)]]
        return replace(rollouts, rewards=dealt[place])
    valid = rollouts.valid.nonzero().squeeze(1)
    rewards = rollouts.rewards.clone()
    rewards[valid] = rollouts.rewards[valid[torch.randperm(len(valid), generator=noise)]]
    return replace(rollouts, rewards=rewards)


def _sampled(written: Completion) -> SampledRow:
    if written.sampled is None:
        raise ConfigError(
            f"only what a policy sampled can be trained on; this plan was given as text: {written.plan[:60]!r}"
        )
    return written.sampled


def _stacked(rows: Sequence[SampledRow], pad_id: int) -> tuple[Int[Tensor, "b p"], Bool[Tensor, "b p"], Completions]:
    prompts: list[Prompts] = []
    completions: list[Completions] = []
    # Rows of one batch stand together, and are taken from it together.
    for _, members in groupby(rows, key=lambda row: id(row.completions)):
        part = list(members)
        index = torch.tensor([row.row for row in part])
        prompts.append(part[0].prompts.rows(index))
        completions.append(part[0].completions.rows(index))
    width = max(part.ids.shape[1] for part in prompts)
    ids = [torch.nn.functional.pad(part.ids, (width - part.ids.shape[1], 0), value=pad_id) for part in prompts]
    mask = [torch.nn.functional.pad(part.mask, (width - part.mask.shape[1], 0)) for part in prompts]
    return torch.cat(ids), torch.cat(mask), join_completions(completions)


Draw = Callable[[int, Sequence[Task]], RolloutBatch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampled:
    """The groups to train on, and all that was drawn besides the first draw."""

    groups: tuple[Group, ...]
    extra: tuple[RolloutBatch, ...]
    metrics: dict[str, float]


def resample(first: RolloutBatch, draw: Draw, tasks: Sequence[Task], *, group_size: int, num_rounds: int) -> Resampled:
    """Replace flat groups by groups of other tasks, `num_rounds` times at most; those still flat at the end stay.

    Args:
        draw: Rollouts of these tasks, in a round.
        tasks: In the order in which they are to be tried; the first draw's are passed over.
    """
    used = {rollout.task.id for rollout in first.rollouts}
    waiting = [task for task in tasks if task.id not in used]
    groups = grouped(first, group_size)
    flat = [group for group in groups if not is_live(group)]
    live = [group for group in groups if is_live(group)]
    extra: list[RolloutBatch] = []
    num_missing = len(flat)
    while num_missing and waiting and len(extra) < num_rounds:
        chosen, waiting = waiting[:num_missing], waiting[num_missing:]
        extra.append(draw(len(extra), chosen))
        found = [group for group in grouped(extra[-1], group_size) if is_live(group)]
        live += found
        num_missing -= len(found)
    metrics = {
        "resampled/flat_groups": float(len(flat)),
        **{f"resampled/flat_{why}": float(count) for why, count in _why_flat(flat).items()},
        "resampled/groups_replaced": float(len(flat) - num_missing),
        "resampled/rounds": float(len(extra)),
        "resampled/rollouts": float(sum(len(batch.rollouts) for batch in extra)),
    }
    return Resampled(groups=(*live, *flat[:num_missing]), extra=tuple(extra), metrics=metrics)


def _why_flat(groups: Sequence[Group]) -> dict[str, int]:
    """How many of these groups have nothing but successes, no success, both at equal rewards, and no valid rollout."""
    found = {"succeeded": 0, "failed": 0, "mixed": 0, "lost": 0}
    for group in groups:
        seen = {rollout.outcome.is_success for rollout in group if rollout.outcome.is_valid}
        found["lost" if not seen else "mixed" if len(seen) > 1 else "succeeded" if True in seen else "failed"] += 1
    return found


def grouped(batch: RolloutBatch, group_size: int) -> list[Group]:
    """The batch's rollouts, `group_size` of each task, as groups."""
    return [batch.rollouts[start : start + group_size] for start in range(0, len(batch.rollouts), group_size)]


def is_live(group: Group) -> bool:
    """Whether the rewards of the group's valid rollouts differ."""
    rewards = [rollout.reward.value for rollout in group if rollout.outcome.is_valid]
    return bool(rewards) and max(rewards) - min(rewards) >= EQUAL_REWARDS
