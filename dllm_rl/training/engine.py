"""Rollouts of one policy: tasks to prompts, prompts to plans, plans to outcomes, outcomes to rewards; and evaluation.

Training, evaluation, snapshots and films take this one path.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dllm_rl import seeding
from dllm_rl.environment import Session
from dllm_rl.policies.base import BasePolicy
from dllm_rl.protocols import Sampler
from dllm_rl.records.rollout import Completion, RewardFunction, Rollout, observe, run_plans
from dllm_rl.records.tasks import Task, render_prompt
from dllm_rl.records.types import SampledRow
from dllm_rl.threads import warn_if_spinning
from dllm_rl.training.ranks import ALONE, Ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutBatch:
    """Rollouts that were sampled together, and what that cost.

    nfe: model forwards, one after another; of the slowest process. token_forwards: summed over the processes.
    """

    rollouts: tuple[Rollout, ...]
    nfe: int
    token_forwards: int
    seconds_sampling: float
    seconds_browser: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutEngine:
    """Makes rollouts of one policy, drawn by one sampler, in one environment.

    ranks: processes that share the rows of a batch; all of them get all rollouts.
    isolation, executor: how the environment runs plans, in its own words; None for its default.
    """

    policy: BasePolicy
    sampler: Sampler
    environment: Session
    reward: RewardFunction
    ranks: Ranks = ALONE
    isolation: str | None = None
    executor: str | None = None

    def at_temperature(self, temperature: float) -> RolloutEngine:
        """The same engine, its sampler at another temperature; 0 is greedy."""
        sampler: Any = self.sampler
        return replace(self, sampler=replace(sampler, temperature=temperature))

    def write(self, tasks: Sequence[Task], row_ids: Sequence[int], *, seed: int) -> list[Completion]:
        """Sample one plan a task, on this process alone. row_ids: names of the rows, by which their noise is keyed."""
        pages = observe(self.environment, tasks)
        texts = [render_prompt(task, page) for task, page in zip(tasks, pages, strict=True)]
        prompts = replace(self.policy.prompts(texts, row_ids), pages=tuple(pages))
        completions = self.sampler.generate(self.policy, prompts, seed=seed)
        lengths = self.policy.canvas.visible(completions.ids).sum(dim=1).tolist()
        return [
            Completion(
                plan=self.policy.canvas.decode(ids),
                prompt=text,
                num_tokens=length,
                sampled=SampledRow(prompts=prompts, completions=completions, row=row),
            )
            for row, (text, ids, length) in enumerate(zip(texts, completions.ids, lengths, strict=True))
        ]

    def run(self, tasks: Sequence[Task], row_ids: Sequence[int], *, seed: int) -> RolloutBatch:
        """Sample one plan a task, run all of them and reward them; rows are shared among the processes."""
        warn_if_spinning()
        started = time.perf_counter()
        share = self.ranks.share(len(tasks))
        mine = list(tasks[share])
        written = self.write(mine, list(row_ids[share]), seed=seed) if mine else []
        sampled = time.perf_counter()
        rollouts = run_plans(
            self.environment,
            self.reward,
            list(zip(mine, written, strict=True)),
            isolation=self.isolation,
            executor=self.executor,
        )
        finished = time.perf_counter()
        first = written[0].sampled if written else None
        nfe, token_forwards = (first.completions.nfe, first.completions.token_forwards) if first else (0, 0)
        parts = self.ranks.gather((rollouts, nfe, token_forwards))
        return RolloutBatch(
            rollouts=tuple(rollout for part, _, _ in parts for rollout in part),
            nfe=max(count for _, count, _ in parts),
            token_forwards=sum(count for _, _, count in parts),
            seconds_sampling=sampled - started,
            seconds_browser=finished - sampled,
        )


# Raised whenever the same policy would be evaluated with other numbers: results are keyed by it.
EVALUATION_VERSION = 1
_SAMPLE_STRIDE = 1_000_003


def evaluate(
    engine: RolloutEngine,
    tasks: Sequence[Task],
    *,
    num_samples: int,
    seed: int,
    batch_rows: int = 96,
    on_result: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Rows of the results table for one policy, ordered by task, then greedy before sampled.

    engine: its sampler's temperature is that of the sampled passes; its processes share the rollouts of each batch, and
        all of them return all rows.
    num_samples: sampled rollouts a task.
    seed: names the noise; equal seeds give equal noise in every cell.
    batch_rows: rollouts that one process samples at a time.
    on_result: gets (rollouts done, rollouts in all).
    """
    number = {task.id: index for index, task in enumerate(tasks)}
    passes = [
        ("greedy", engine.at_temperature(0.0), [(0, task) for task in tasks]),
        ("sampled", engine, [(sample, task) for sample in range(num_samples) for task in tasks]),
    ]
    rows: list[dict[str, Any]] = []
    for mode, drawing, jobs in passes:
        size = batch_rows * engine.ranks.count
        for part in (jobs[start : start + size] for start in range(0, len(jobs), size)):
            row_ids = [sample * _SAMPLE_STRIDE + number[task.id] for sample, task in part]
            batch = drawing.run([task for _, task in part], row_ids, seed=noise_seed(seed))
            for (sample, _), rollout in zip(part, batch.rollouts, strict=True):
                rows.append(rollout.to_row(mode=mode, sample=sample))
            if on_result is not None:
                on_result(len(rows), len(tasks) * (1 + num_samples))
    return sorted(rows, key=lambda row: (number[row["task_id"]], row["mode"], row["sample"]))


def noise_seed(seed: int) -> int:
    """Seed of the samplers at an evaluation of this seed; the greedy row of a task is named by the task's number."""
    return seeding.derive(seed, "evaluation")
