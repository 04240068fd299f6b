"""Before anything is trained: the gold plan of every task a grid uses must succeed in the browser; others are left out.

The verdict is kept in the run folder and keyed by the tasks, so that a grid that continues leaves out the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from rich.console import Console

from dllm_rl.errors import HarnessError
from dllm_rl.tasks import Task
from experiments.config import Preset
from experiments.digests import task_digest
from experiments.run_folder import read_json, write_json
from experiments.units import TaskSource, Without, select_tasks
from harness.session import EnvironmentSession
from harness.text import TextSession

_FILE = "self_check.json"
# Above this share of broken tasks it is not a few tasks that are wrong.
MAX_SHARE = 0.2


def known_tasks(preset: Preset, source: TaskSource, root: Path) -> TaskSource:
    """The tasks without those that an earlier self-check of this run left out; nothing is run."""
    kept = _kept(preset, source)
    return Without(source=kept, excluded=frozenset(_known(root).get(task_digest(_used(preset, kept)), {})))


def checked_tasks(
    preset: Preset, session: EnvironmentSession | TextSession, root: Path, console: Console
) -> TaskSource:
    """Self-check the tasks of this preset, unless that was done before; says what is left out and why.

    Of two commands that begin one grid at once, one checks and the other takes its word: they work on the same tasks.
    """
    source = _kept(preset, session)
    tasks = _used(preset, source)
    key = task_digest(tasks)
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".self_check.lock"):
        known = _known(root)
        if key not in known:
            console.print(f"self-check: {len(tasks)} tasks, each by its gold plan", highlight=False)
            good = {task.id for task in session.self_check(tasks)}
            reasons = session.quarantined
            known[key] = {task.id: reasons.get(task.id, "") for task in tasks if task.id not in good}
            if len(known[key]) > MAX_SHARE * len(tasks):
                example = next(iter(known[key].items()))
                raise HarnessError(
                    f"{len(known[key])} of {len(tasks)} gold plans fail, such as {example}: sites are broken."
                )
            write_json(root / _FILE, known)
    for task_id, reason in known[key].items():
        console.print(f"left out: {task_id}: {reason}", markup=False, highlight=False)
    return Without(source=source, excluded=frozenset(known[key]))


@dataclass(frozen=True, slots=True)
class _Kept:
    """Tasks of the splits that a preset uses, as they were before any was left out."""

    by_split: dict[str, list[Task]]

    def tasks(self, split: str) -> Sequence[Task]:
        return self.by_split[split]


def _kept(preset: Preset, source: TaskSource) -> _Kept:
    splits = (preset.training_tasks.split, preset.evaluation.split)
    return _Kept({split: list(source.tasks(split)) for split in splits})


def _used(preset: Preset, source: TaskSource) -> list[Task]:
    """The tasks that the preset trains and evaluates on."""
    return [
        *select_tasks(source, preset.training_tasks.split, preset.training_tasks.max_tasks),
        *select_tasks(source, preset.evaluation.split, preset.evaluation.max_tasks),
    ]


def _known(root: Path) -> dict[str, dict[str, str]]:
    path = root / _FILE
    return read_json(path) if path.is_file() else {}
