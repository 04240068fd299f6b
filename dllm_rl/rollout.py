"""Make rollouts: tasks to prompts, prompts to plans, plans to outcomes, outcomes to rewards. Made once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from dllm_rl.joining import join_completions
from dllm_rl.policies.base import BasePolicy
from dllm_rl.protocols import Sampler
from dllm_rl.ranks import ALONE, Ranks
from dllm_rl.tasks import Outcome, Page, Task
from dllm_rl.template import render_prompt
from dllm_rl.types import Completions, Prompts, Rollouts


class RewardLike(Protocol):
    """What a reward scheme returns for an outcome."""

    @property
    def value(self) -> float:
        """The reward, in [0, 1]."""
        ...

    @property
    def field_accuracy(self) -> float:
        """Share of gold fields that hold their wanted value."""
        ...

    @property
    def progress(self) -> float:
        """How far the plan came, in [0, 1]."""
        ...

    @property
    def is_success(self) -> bool:
        """Accepted with every value right."""
        ...

    @property
    def is_near_miss(self) -> bool:
        """Every value right, nothing accepted."""
        ...


RewardFunction = Callable[[Outcome], RewardLike]


class EnvironmentLike(Protocol):
    """The synchronous face of an environment that trainer and evaluation use."""

    def observe_many(self, tasks: Sequence[Task]) -> Sequence[Page]:
        """Pages of tasks, cached."""
        ...

    def run_many(
        self, pairs: Sequence[tuple[Task, str]], *, isolation: Any = None, executor: Any = None
    ) -> Sequence[Outcome]:
        """Outcomes of plans, in order; isolation and executor as the environment names them, None for its default."""
        ...

    def score_many(self, pairs: Sequence[tuple[Task, str]]) -> Sequence[float]:
        """Cheap scores of plans, without running them; the gold plan scores 1."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """One batch of rollouts with what logs and reports need beside the tensors."""

    rollouts: Rollouts
    completions: Completions
    tasks: tuple[Task, ...]
    plans: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    rewards: tuple[RewardLike, ...]
    eos_id: int
    seconds_sampling: float
    seconds_browser: float


def collect(
    *,
    policy: BasePolicy,
    sampler: Sampler,
    environment: EnvironmentLike,
    reward: RewardFunction,
    tasks: Sequence[Task],
    group_size: int,
    first_row: int,
    seed: int,
    temperature: float,
    ranks: Ranks = ALONE,
) -> Collected:
    """Sample `group_size` plans a task, run them all, and reward them. Rows of one task share a group id.

    first_row: row id of the first rollout, by which the noise is keyed. ranks: processes that share the work; each
    samples and runs its part of the rows, and all return the whole.
    """
    started = time.perf_counter()
    repeated = [task for task in tasks for _ in range(group_size)]
    prompts = prompts_for(policy, environment, repeated, range(first_row, first_row + len(repeated)))
    share = ranks.share(len(repeated))
    mine = prompts if ranks.is_alone else prompts.rows(torch.arange(len(repeated))[share])
    completions = sampler.generate(policy, mine, seed=seed)
    plans = [policy.canvas.decode(row) for row in completions.ids]
    sampled = time.perf_counter()
    outcomes = environment.run_many(list(zip(repeated[share], plans, strict=True)))
    finished = time.perf_counter()
    if not ranks.is_alone:
        parts = ranks.gather((completions, plans, list(outcomes)))
        completions = join_completions([part[0] for part in parts])
        plans = [plan for part in parts for plan in part[1]]
        outcomes = [outcome for part in parts for outcome in part[2]]
    rewards = [reward(outcome) for outcome in outcomes]
    valid = torch.tensor([outcome.is_valid for outcome in outcomes])
    group_ids = torch.arange(len(tasks)).repeat_interleave(group_size)
    rollouts = Rollouts(
        prompt_ids=prompts.ids,
        prompt_mask=prompts.mask,
        completion_ids=completions.ids,
        completion_mask=completions.mask,
        rewards=torch.tensor([record.value for record in rewards], dtype=torch.float32),
        group_ids=group_ids,
        valid=valid,
        trajectory=completions.trajectory,
        totals=Rollouts.count_totals(valid, group_ids, completions.mask),
        temperature=temperature,
    )
    return Collected(
        rollouts=rollouts,
        completions=completions,
        tasks=tuple(repeated),
        plans=tuple(plans),
        outcomes=tuple(outcomes),
        rewards=tuple(rewards),
        eos_id=policy.canvas.eos_id,
        seconds_sampling=sampled - started,
        seconds_browser=finished - sampled,
    )


def prompts_for(
    policy: BasePolicy, environment: EnvironmentLike, tasks: Sequence[Task], row_ids: Sequence[int]
) -> Prompts:
    """Observe the tasks' pages and tokenise the one template."""
    unique = {task.id: task for task in tasks}
    pages = dict(zip(unique, environment.observe_many(list(unique.values())), strict=True))
    prompts = policy.prompts([render_prompt(task, pages[task.id]) for task in tasks], row_ids)
    return replace(prompts, pages=tuple(pages[task.id] for task in tasks))
