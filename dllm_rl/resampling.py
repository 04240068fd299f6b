"""Dynamic sampling (DAPO, 2503.14476): groups whose rewards are all equal are drawn anew on other tasks.

Such groups teach nothing, so a batch that holds them is smaller than it seems. Drawing others costs rollouts that a
method without this does not spend: a grid refuses it unless the preset declares it (`experiments.grid`), every rollout
is counted and logged, and the metrics of the rollouts stay those of the first draw, which is the same for all methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm_rl.advantages import EQUAL_REWARDS, groups
from dllm_rl.errors import ConfigError
from dllm_rl.joining import join_trajectories
from dllm_rl.rollout import Collected
from dllm_rl.tasks import Task
from dllm_rl.types import Rollouts, Trajectory

Draw = Callable[[int, Sequence[Task]], Collected]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampled:
    """The batch to train on, with the task of each row, and all that was drawn besides the first draw."""

    rollouts: Rollouts
    tasks: tuple[Task, ...]
    extra: tuple[Collected, ...]
    metrics: dict[str, float]


def resample(first: Collected, draw: Draw, tasks: Sequence[Task], *, num_rounds: int, pad_id: int) -> Resampled:
    """Replace flat groups by groups of other tasks, `num_rounds` times at most; those still flat at the end stay.

    draw: rollouts of these tasks, in a round. tasks: in the order in which they are to be tried; the first draw's are
    passed over. Raises ConfigError where the draws are constrained by a grammar.
    """
    recorded = first.rollouts.trajectory
    if recorded is not None and recorded.constraint is not None:
        raise ConfigError(
            "resample_rounds cannot join rollouts that were drawn under the grammar. Set resample_rounds to 0, or "
            "decoding.grammar to evaluation."
        )
    used = {task.id for task in first.tasks}
    waiting = [task for task in tasks if task.id not in used]
    parts, extra = [(first, is_live(first.rollouts))], []
    num_flat = _num_groups(first.rollouts, ~parts[0][1])
    num_missing = num_flat
    while num_missing and waiting and len(extra) < num_rounds:
        chosen, waiting = waiting[:num_missing], waiting[num_missing:]
        drawn = draw(len(extra), chosen)
        extra.append(drawn)
        parts.append((drawn, is_live(drawn.rollouts)))
        num_missing -= _num_groups(drawn.rollouts, parts[-1][1])
    rollouts, kept_tasks = _joined(first, parts, num_missing, pad_id)
    metrics = {
        "resampled/flat_groups": float(num_flat),
        "resampled/groups_replaced": float(num_flat - num_missing),
        "resampled/rounds": float(len(extra)),
        "resampled/rollouts": float(sum(part.rollouts.num_rows for part in extra)),
    }
    return Resampled(rollouts=rollouts, tasks=kept_tasks, extra=tuple(extra), metrics=metrics)


def is_live(rollouts: Rollouts) -> Bool[Tensor, " b"]:
    """Rows of groups whose valid rewards differ."""
    return groups(rollouts.rewards, rollouts.group_ids, rollouts.valid).spread >= EQUAL_REWARDS


def _num_groups(rollouts: Rollouts, rows: Bool[Tensor, " b"]) -> int:
    return int(rollouts.group_ids[rows].unique().numel())


def _joined(
    first: Collected, parts: list[tuple[Collected, Tensor]], num_missing: int, pad_id: int
) -> tuple[Rollouts, tuple[Task, ...]]:
    """Live groups of all draws, then as many flat ones of the first draw as could not be replaced."""
    chosen = [(part, live.nonzero().squeeze(1)) for part, live in parts]
    flat_ids = first.rollouts.group_ids[~parts[0][1]].unique()[:num_missing]
    chosen.append((first, torch.isin(first.rollouts.group_ids, flat_ids).nonzero().squeeze(1)))
    chosen = [(part, index) for part, index in chosen if index.numel()]
    tasks = tuple(part.tasks[row] for part, index in chosen for row in index.tolist())
    return stack_rollouts([part.rollouts.rows(index) for part, index in chosen], pad_id=pad_id), tasks


def stack_rollouts(parts: Sequence[Rollouts], *, pad_id: int) -> Rollouts:
    """One batch from several of one policy and sampler: prompts padded to the longest, groups told apart.

    Trajectories of fewer steps end in repetitions of their last state, at which nothing is committed.
    """
    width = max(part.prompt_ids.shape[1] for part in parts)
    padded = [_wider(part, width, pad_id) for part in parts]
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "rewards", "valid")
    merged = {name: torch.cat([getattr(part, name) for part in padded]) for name in names}
    group_ids = _distinct([part.group_ids for part in parts])
    recorded = [part.trajectory for part in parts if part.trajectory is not None]
    trajectory = _stack_trajectories(recorded) if recorded else None
    return replace(
        parts[0],
        **merged,
        group_ids=group_ids,
        trajectory=trajectory,
        totals=Rollouts.count_totals(merged["valid"], group_ids, merged["completion_mask"]),
    )


def _wider(part: Rollouts, width: int, pad_id: int) -> Rollouts:
    extra = (width - part.prompt_ids.shape[1], 0)
    ids = torch.nn.functional.pad(part.prompt_ids, extra, value=pad_id)
    return replace(part, prompt_ids=ids, prompt_mask=torch.nn.functional.pad(part.prompt_mask, extra))


def _distinct(ids: Sequence[Int[Tensor, " b"]]) -> Int[Tensor, " b"]:
    """Group ids 0, 1, ... in which no two parts share one."""
    found, first = [], 0
    for part in ids:
        names, index = part.unique(return_inverse=True)
        found.append(index + first)
        first += len(names)
    return torch.cat(found)


def _stack_trajectories(parts: Sequence[Trajectory]) -> Trajectory:
    longest = max(part.num_steps for part in parts)
    if parts[0].time is not None and any(part.num_steps != longest for part in parts):
        raise ConfigError(
            "trajectories of different numbers of flow steps cannot be joined; fix the sampler's num_steps."
        )
    return join_trajectories(parts)
