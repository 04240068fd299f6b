"""Evaluation of one policy: k sampled rollouts a task and one greedy pass, with common random numbers across cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from dllm_rl import seeding
from dllm_rl.policies.base import BasePolicy
from dllm_rl.ranks import ALONE, Ranks
from dllm_rl.rollout import EnvironmentLike, RewardFunction, prompts_for
from dllm_rl.tasks import Outcome, Task

_SAMPLE_STRIDE = 1_000_003


def evaluate(
    *,
    policy: BasePolicy,
    sampler: Any,
    environment: EnvironmentLike,
    reward: RewardFunction,
    tasks: Sequence[Task],
    num_samples: int,
    temperature: float,
    seed: int,
    isolation: str | None = None,
    executor: str | None = None,
    batch_rows: int = 96,
    on_result: Callable[[int, int], None] | None = None,
    ranks: Ranks = ALONE,
) -> list[dict[str, Any]]:
    """Rows of the results table for one policy, ordered by task, then greedy before sampled.

    temperature: of the sampled passes. seed: names the noise; equal seeds give equal noise in every cell.
    on_result gets (rollouts done, rollouts in all). ranks: processes that share the rollouts; all return all rows.
    """
    jobs = [("greedy", 0, task) for task in tasks]
    jobs += [("sampled", sample, task) for sample in range(num_samples) for task in tasks]
    number = {task.id: index for index, task in enumerate(tasks)}
    noise = noise_seed(seed)
    rows: list[dict[str, Any]] = []
    for mode in ("greedy", "sampled"):
        of_mode = [job for job in jobs if job[0] == mode]
        of_mode = of_mode[ranks.share(len(of_mode))]
        drawer = replace(sampler, temperature=0.0 if mode == "greedy" else temperature)
        for start in range(0, len(of_mode), batch_rows):
            part = of_mode[start : start + batch_rows]
            chosen = [task for _, _, task in part]
            row_ids = [sample * _SAMPLE_STRIDE + number[task.id] for _, sample, task in part]
            completions = drawer.generate(policy, prompts_for(policy, environment, chosen, row_ids), seed=noise)
            plans = [policy.canvas.decode(ids) for ids in completions.ids]
            outcomes = environment.run_many(
                list(zip(chosen, plans, strict=True)), isolation=isolation, executor=executor
            )
            lengths = policy.canvas.scored(completions.ids).sum(dim=1).tolist()
            for (_, sample, task), plan, outcome, length in zip(part, plans, outcomes, lengths, strict=True):
                rows.append(result_row(task, mode, sample, plan, outcome, reward, length))
            if on_result is not None:
                on_result(len(rows) * ranks.count, len(jobs))
    rows = [row for part in ranks.gather(rows) for row in part]
    return sorted(rows, key=lambda row: (number[row["task_id"]], row["mode"], row["sample"]))


def noise_seed(seed: int) -> int:
    """Seed of the samplers at an evaluation of this seed; the greedy row of a task is named by the task's number."""
    return seeding.derive(seed, "evaluation")


def result_row(
    task: Task, mode: str, sample: int, plan: str, outcome: Outcome, reward: RewardFunction, num_tokens: int
) -> dict[str, Any]:
    """One executed plan as a row of the results table."""
    record = reward(outcome)
    return {
        "split": task.split,
        "task_id": task.id,
        "mode": mode,
        "sample": sample,
        "reward": float(record.value),
        "success": bool(record.is_success),
        "submitted": bool(outcome.is_submitted),
        "field_accuracy": float(record.field_accuracy),
        "progress": float(record.progress),
        "near_miss": bool(record.is_near_miss),
        "parsed": bool(outcome.is_parsed),
        "fault": str(outcome.fault.value),
        "plan": plan,
        "notes": summarise(outcome),
        "num_tokens": int(num_tokens),
        "seconds": float(sum(outcome.seconds.values())),
    }


def summarise(outcome: Outcome, limit: int = 4) -> str:
    """What went wrong, in a line: the fault, the first failed actions, the wrong fields."""
    parts = [f"fault: {outcome.fault_reason}"] if outcome.fault_reason else []
    notes = [action.note for action in outcome.actions if action.status in ("failed", "malformed") and action.note]
    parts += [note for note in dict.fromkeys(notes) if note not in (outcome.fault_reason or "")]
    wrong = [result for result in outcome.fields if not result.is_correct]
    for result in wrong:
        shown = result.server if result.server is not None else result.dom
        parts.append(
            f"{result.name}: wanted {', '.join(result.wanted) or 'unset'}, got {', '.join(shown or ()) or 'nothing'}"
        )
    if outcome.is_success:
        parts.append("success")
    elif not outcome.is_submitted:
        parts.append("not submitted")
    return "; ".join(parts[:limit])
