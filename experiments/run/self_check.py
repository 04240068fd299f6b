"""Before anything is trained: the gold plan of every task a grid uses must succeed in the browser; others are left out.

The verdict is kept in the run folder and keyed by the tasks, so that a grid that continues leaves out the same ones.
"""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock
from rich.console import Console

from dllm_rl.errors import HarnessError
from dllm_rl.session import Session
from experiments.design.config import Preset
from experiments.design.units import TaskSets, task_digest
from experiments.run.folder import RunFolder

# Above this share of broken tasks it is not a few tasks that are wrong.
MAX_SHARE = 0.2


def known_tasks(preset: Preset, session: Session, root: Path) -> TaskSets:
    """The tasks without those that an earlier self-check of this run left out; nothing is run."""
    tasks = TaskSets.of(preset, session)
    return tasks.without(RunFolder(root).self_check().get(_key(tasks), {}))


def checked_tasks(preset: Preset, session: Session, root: Path, console: Console) -> TaskSets:
    """Self-check the tasks of this preset, unless that was done before; says what is left out and why.

    If two commands start the same grid, one runs the check and the other reuses its result.
    """
    tasks = TaskSets.of(preset, session)
    every, key = [*tasks.training, *tasks.evaluation], _key(tasks)
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".self_check.lock"):
        known = RunFolder(root).self_check()
        if key not in known:
            console.print(f"self-check: {len(every)} tasks, each by its gold plan", highlight=False)
            known[key] = session.self_check(every)
            if len(known[key]) > MAX_SHARE * len(every):
                example = next(iter(known[key].items()))
                raise HarnessError(
                    f"{len(known[key])} of {len(every)} gold plans fail, such as {example}: sites are broken."
                )
            RunFolder(root).write_self_check(known)
    for task_id, reason in known[key].items():
        console.print(f"left out: {task_id}: {reason}", markup=False, highlight=False)
    return tasks.without(known[key])


def _key(tasks: TaskSets) -> str:
    return task_digest([*tasks.training, *tasks.evaluation])
