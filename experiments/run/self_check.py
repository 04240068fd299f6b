"""Before anything is trained: the gold plan of every task a grid uses must succeed in the browser; others are left out.

The verdict is kept in the run folder, so that a grid that continues leaves out the same ones. It is keyed by the tasks
and by what decides whether they can be solved: the environment, its version and its settings. What the environment lost
is no verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock
from rich.console import Console

from dllm_rl import registry
from dllm_rl.errors import HarnessError
from dllm_rl.records.tasks import Task
from dllm_rl.session import Session
from experiments.design.config import Preset
from experiments.design.units import TaskSets, digest, task_digest
from experiments.run.folder import RunFolder

# Above this share of broken tasks it is not a few tasks that are wrong.
MAX_SHARE = 0.2


def known_tasks(preset: Preset, session: Session, root: Path) -> TaskSets:
    """The tasks without those that an earlier self-check of this run left out; nothing is run."""
    tasks = TaskSets.of(preset, session)
    return tasks.without(RunFolder(root).self_check().get(_key(preset, tasks), {}))


def checked_tasks(preset: Preset, session: Session, root: Path, console: Console) -> TaskSets:
    """Self-check the tasks of this preset, unless that was done before; says what is left out and why.

    If two commands start the same grid, one runs the check and the other reuses its result.
    """
    tasks = TaskSets.of(preset, session)
    every, key = [*tasks.training, *tasks.evaluation], _key(preset, tasks)
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".self_check.lock"):
        known = RunFolder(root).self_check()
        if key not in known:
            console.print(f"self-check: {len(every)} tasks, each by its gold plan", highlight=False)
            known[key] = _unsolved(session, every)
            RunFolder(root).write_self_check(known)
    for task_id, reason in known[key].items():
        console.print(f"left out: {task_id}: {reason}", markup=False, highlight=False)
    return tasks.without(known[key])


def _unsolved(session: Session, tasks: Sequence[Task]) -> dict[str, str]:
    """Ids of the tasks that do not prove themselves, with the reason. What the environment loses is tried once more.

    Raises HarnessError where too many fail, and where the environment loses one again.
    """
    found = session.self_check(tasks)
    if len(found) > MAX_SHARE * len(tasks):
        task_id, why = next(iter(found.items()))
        raise HarnessError(
            f"{len(found)} of {len(tasks)} gold plans fail, such as that of {task_id}, {why.reason}: sites are broken."
        )
    if lost := [task for task in tasks if task.id in found and found[task.id].is_lost]:
        session.forget_failures()
        again = session.self_check(lost)
        found = {task_id: why for task_id, why in found.items() if not why.is_lost} | again
    if still := {task_id: why for task_id, why in found.items() if why.is_lost}:
        task_id, why = next(iter(still.items()))
        raise HarnessError(
            f"{len(still)} of {len(tasks)} tasks could not be checked, such as {task_id}: {why.reason}. Whether they "
            "can be solved is not known, so nothing was started. Mend what is lost there, and give the same command."
        )
    return {task_id: why.reason for task_id, why in found.items()}


def _key(preset: Preset, tasks: TaskSets) -> str:
    environment = registry.identity("environment", preset.environment.name, preset.environment.options)
    return digest({"tasks": task_digest([*tasks.training, *tasks.evaluation]), "environment": environment})
