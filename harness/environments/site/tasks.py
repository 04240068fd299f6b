"""Tasks on a site of one's own, from a JSONL file: one object a line.

    {"instruction": "Sign Ann up for the Monday course.", "start": "/signup.html",
     "values": {"Your name": "Ann", "Course": "Monday", "#terms": true}}

A key of `values` is a label, the HTML name, or a selector (it begins with `#`, `.` or `[`) of what must be given. The
task succeeds where the site accepts the form with these values and leaves all other fields as they were; `success` says
when it is accepted, `ignored` which fields do not matter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dllm_rl.errors import ConfigError
from dllm_rl.files import lines_of
from dllm_rl.records.tasks import Task
from harness.environments.recorded import CannotHoldError, Observed, Unsolvable, gold_of, is_nothing, spoken
from harness.recorder import Criterion

# Which of every five tasks belong to a split, where the file does not say.
NUM_PARTS = 5
PARTS = {"train": (0, 1, 2), "val": (3,), "test": (4,)}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SuccessRecord(_Strict):
    """When the form counts as accepted; see `harness.recorder.Criterion`."""

    status: int | tuple[int, ...] = ()
    path: str = ""
    text: str = ""

    def criterion(self) -> Criterion | None:
        """The criterion; None where nothing is said."""
        status = (self.status,) if isinstance(self.status, int) else self.status
        found = Criterion(status=status, path=self.path, text=self.text)
        return None if found == Criterion() else found


class TaskRecord(_Strict):
    """One line of the file.

    Attributes:
        id: Name of the task; default: its number in the file.
        instruction: What the policy is asked; default: the values, as `label: value` pairs.
        start: Path of the page on which the form begins.
        values: What must be received, by label, HTML name or selector.
        success: When the form counts as accepted.
        ignored: Labels, HTML names or selectors of fields whose value does not matter.
        split: Where the task belongs; default: of five in a row three are for training, one is val and one test.
    """

    id: str = ""
    instruction: str = ""
    start: str = "/"
    values: dict[str, Any] = Field(min_length=1)
    success: SuccessRecord = SuccessRecord()
    ignored: tuple[str, ...] = ()
    split: Literal["train", "val", "test"] | None = None


def is_selector(key: str) -> bool:
    """Whether a key is a selector, and no label or name."""
    return key[:1] in ("#", ".", "[")


def read_tasks(path: Path) -> tuple[TaskRecord, ...]:
    """Read the file. Raises ConfigError that names the line and what is wrong with it."""
    try:
        lines = lines_of(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"tasks '{path}' cannot be read: {error}. Give a JSONL file in UTF-8.") from None
    records = [_record(line, f"{path}, line {at}") for at, line in enumerate(lines, start=1) if line.strip()]
    if not records:
        raise ConfigError(f"'{path}' has no task. Write one JSON object a line, with `values` at least.")
    return tuple(records)


def _record(line: str, where: str) -> TaskRecord:
    try:
        record = TaskRecord.model_validate(json.loads(line))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the line"
        known = ", ".join(TaskRecord.model_fields)
        raise ConfigError(f"{where}: {place}: {first['msg']}. A task has {known}.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is not a JSON object: {error}. Write one object a line.") from None
    if not record.start.startswith("/"):
        raise ConfigError(f"{where}: start is '{record.start}'; expected a path of the site, such as /signup.html.")
    return record


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteTask:
    """A task that plans can solve, with what its outcome needs beside it, and its place in the file, from 0."""

    task: Task
    record: TaskRecord
    ignored: frozenset[str]
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteTasks:
    """All tasks of a file: those that can be solved, and the others with the reason."""

    solvable: tuple[SiteTask, ...]
    unsolvable: tuple[Unsolvable, ...]

    def without(self, refusals: Mapping[str, str]) -> SiteTasks:
        """Without the tasks that cannot be solved for these reasons, by id."""
        refused = [
            Unsolvable(task_id=item.task.id, form=item.task.site, number=item.number, reason=refusals[item.task.id])
            for item in self.solvable
            if item.task.id in refusals
        ]
        solvable = tuple(item for item in self.solvable if item.task.id not in refusals)
        return SiteTasks(solvable=solvable, unsolvable=(*self.unsolvable, *refused))


def make_tasks(records: Sequence[TaskRecord], seen: Mapping[str, Observed], files: Sequence[str]) -> SiteTasks:
    """Find the fields that each task speaks of.

    Args:
        records: The lines of the file.
        seen: Each start page, as it was looked at.
        files: Names of the files that may be uploaded.
    """
    solvable, unsolvable = [], []
    for number, record in enumerate(records):
        name, form = record.id or str(number + 1), seen[record.start]
        split = record.split or next(split for split, parts in PARTS.items() if number % NUM_PARTS in parts)
        task = Task(id=f"{split}/{name}", split=split, site=record.start, instruction=_instruction(record), gold=())
        try:
            gold = gold_of(record.values, form, files)
            if not any(set(item.wanted) != set(form.defaults.get(item.name, ())) for item in gold):
                raise CannotHoldError("the untouched form holds all of it")
            ignored = frozenset(control.field for key in record.ignored for control in _found(key, form))
        except CannotHoldError as error:
            unsolvable.append(Unsolvable(task_id=task.id, form=record.start, number=number, reason=str(error)))
            continue
        task = replace(task, id=f"{task.id}.{_digest(record, form)}", gold=gold)
        solvable.append(SiteTask(task=task, record=record, ignored=ignored, number=number))
    return SiteTasks(solvable=tuple(solvable), unsolvable=tuple(unsolvable))


def _digest(record: TaskRecord, form: Observed) -> str:
    """Tells a task from one on a page that has changed since, so that results of the two do not meet."""
    return hashlib.sha256(f"{record!r}{form.page!r}".encode()).hexdigest()[:8]


def _found(key: str, form: Observed) -> tuple[Any, ...]:
    controls = form.find(key)
    if not controls:
        raise CannotHoldError(f"{key}: ignored, but no control has this label, name or selector")
    return controls


def _instruction(record: TaskRecord) -> str:
    pairs = (f"{key}: {spoken(value)}" for key, value in record.values.items() if not is_nothing(value))
    return record.instruction or "; ".join(pairs)
