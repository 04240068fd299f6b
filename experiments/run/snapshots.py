"""The same three tasks along a training run: the policy's greedy plans, what they did in the browser, and their films.

A snapshot is taken at the start (by the warm start's own unit), after each quarter of the steps and at the end, of the
first seed of each cell. Nothing is selected by it and no number depends on it; the report shows start, best and last.
The noise, the isolation and the executor are the evaluation's. Where a kill falls on a snapshot in the middle, right
after the checkpoint of its step, it is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dllm_rl.files import COMMITS_FILE, append_rows, replace_file, truncate_rows, write_json
from dllm_rl.records.canvas import Canvas
from dllm_rl.records.tasks import Task
from dllm_rl.records.trajectory import commit_counts
from dllm_rl.records.types import Rollouts
from dllm_rl.training.engine import RolloutEngine, noise_seed
from experiments.report.film import record_film, render_film
from experiments.run.folder import SNAPSHOTS_FOLDER

NUM_TASKS = 3
NUM_PARTS = 4


def is_snapshot(step: int, num_steps: int) -> bool:
    """Whether one is taken after `step` of `num_steps` steps."""
    return step in {-(-num_steps * part // NUM_PARTS) for part in range(1, NUM_PARTS + 1)}


def shown_tasks(num_tasks: int) -> list[int]:
    """Which of the evaluated tasks are shown: three, spread over them; they do not depend on any result."""
    count = min(NUM_TASKS, num_tasks)
    return [num_tasks * (2 * index + 1) // (2 * count) for index in range(count)]


def has_snapshot(folder: Path, step: int) -> bool:
    """Whether that of this step has been taken."""
    return (folder / SNAPSHOTS_FOLDER / f"step{step}.json").is_file()


def take_snapshot(
    folder: Path,
    step: int,
    *,
    engine: RolloutEngine,
    tasks: Sequence[Task],
    seed: int,
) -> None:
    """Write greedy plans with their outcomes to <folder>/waypoints/step<n>.json, and a film of each beside it.

    Args:
        engine: The evaluation's.
        tasks: All that are evaluated, of which some are shown.
        seed: The evaluation's.
    """
    numbers = shown_tasks(len(tasks))
    shown = [tasks[number] for number in numbers]
    batch = engine.at_temperature(0.0).run(shown, numbers, seed=noise_seed(seed))
    place, rows = folder / SNAPSHOTS_FOLDER, []
    place.mkdir(parents=True, exist_ok=True)
    for torn in place.glob(".*.tmp"):
        torn.unlink()
    for index, rollout in enumerate(batch.rollouts):
        task = rollout.task
        if not rollout.turns:
            # Lost before anything was written.
            continue
        film = record_film(
            engine.policy,
            rollout.turns[0].completion.trained[0],
            title=f"{task.id} after {step} steps",
            instruction=task.instruction,
            sampler=engine.sampler.name,
        )
        name = f"step{step}-{index}.html"
        with replace_file(place / name) as temporary:
            temporary.write_text(render_film(film), encoding="utf-8")
        labels = {"instruction": task.instruction, "film": f"{SNAPSHOTS_FOLDER}/{name}"}
        rows.append(rollout.to_row(**labels, mode="greedy", sample=0))
    write_json(place / f"step{step}.json", {"step": step, "rows": rows})


def marked_steps(num_steps: int) -> tuple[int, ...]:
    """The training steps at which the order is kept: first, middle and last."""
    return tuple(sorted({0, (num_steps - 1) // 2, num_steps - 1})) if num_steps else ()


def keep_commit_order(folder: Path, num_steps: int, canvas: Canvas) -> Callable[[int, Rollouts], None]:
    """What a trainer calls with each step's rollouts; a step that is run again is written once."""

    def keep(step: int, rollouts: Rollouts) -> None:
        if step in marked_steps(num_steps):
            truncate_rows(folder / COMMITS_FILE, before_step=step)
            append_rows(folder / COMMITS_FILE, [{"step": step, **commit_counts(rollouts, canvas)}])

    return keep
