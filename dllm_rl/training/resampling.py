"""Dynamic sampling (DAPO, 2503.14476): groups whose rewards are all equal are drawn anew on other tasks.

Such groups teach nothing, so a batch that holds them is smaller than it seems. Drawing others costs rollouts that a
method without this does not spend: a grid refuses it unless the preset declares it (`experiments.design.grid`), every
rollout is counted and logged, and the metrics of the rollouts stay those of the first draw, which is the same for all
methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dllm_rl.advantages import EQUAL_REWARDS
from dllm_rl.records.stacking import Group
from dllm_rl.records.tasks import Task
from dllm_rl.training.engine import RolloutBatch

Draw = Callable[[int, Sequence[Task]], RolloutBatch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampled:
    """The groups to train on, and all that was drawn besides the first draw."""

    groups: tuple[Group, ...]
    extra: tuple[RolloutBatch, ...]
    metrics: dict[str, float]


def resample(first: RolloutBatch, draw: Draw, tasks: Sequence[Task], *, group_size: int, num_rounds: int) -> Resampled:
    """Replace flat groups by groups of other tasks, `num_rounds` times at most; those still flat at the end stay.

    draw: rollouts of these tasks, in a round. tasks: in the order in which they are to be tried; the first draw's are
    passed over.
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
        "resampled/groups_replaced": float(len(flat) - num_missing),
        "resampled/rounds": float(len(extra)),
        "resampled/rollouts": float(sum(len(batch.rollouts) for batch in extra)),
    }
    return Resampled(groups=(*live, *flat[:num_missing]), extra=tuple(extra), metrics=metrics)


def grouped(batch: RolloutBatch, group_size: int) -> list[Group]:
    """The batch's rollouts, `group_size` of each task, as groups."""
    return [batch.rollouts[start : start + group_size] for start in range(0, len(batch.rollouts), group_size)]


def is_live(group: Group) -> bool:
    """Whether the rewards of the group's valid rollouts differ."""
    rewards = [rollout.reward.value for rollout in group if rollout.outcome.is_valid]
    return bool(rewards) and max(rewards) - min(rewards) >= EQUAL_REWARDS
