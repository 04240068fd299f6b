"""What a checkout holds: its application, the pages with forms that it links to, its gold records, and tasks from them.

Where things stand in the folder is found out rather than assumed: pages by following links, records as the JSON files
that are lists of records, and which records belong to which page by the names they share with its controls.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dllm_rl.errors import ConfigError
from dllm_rl.records.tasks import GoldField, Observation, Task
from harness.environments.recorded import (
    CannotHoldError,
    Observed,
    Unsolvable,
    find_controls,
    gold_of,
    is_nothing,
    spoken,
)

MIN_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class FormRecords:
    """The gold records of one form.

    Attributes:
        form: Name of the form.
        path: Path of its page.
        file: File of the records, relative to the checkout.
        records: Key to value, as written in the file.
    """

    form: str
    path: str
    file: str
    records: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A user's folder.

    Attributes:
        folder: The folder.
        application: `file:attribute` of its WSGI application, such as a Flask object.
        forms: Gold file by page path; None to find out which file belongs to which page.
    """

    folder: Path
    application: str = "app.py:app"
    forms: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        file = self.application.rpartition(":")[0]
        if not (self.folder / file).is_file():
            raise ConfigError(
                f"no {file or 'application'} in '{self.folder}'. Give the folder of a checkout, and its application as "
                "<file>:<attribute>, such as app.py:app."
            )

    def gold_files(self) -> dict[str, tuple[Any, ...]]:
        """Records by file, for every JSON file that is a list of records or holds exactly one such list."""
        found = {}
        for path in sorted(self.folder.rglob("*.json")):
            if not any(part.startswith(".") or part == "node_modules" for part in path.relative_to(self.folder).parts):
                records = _records(path)
                if records:
                    found[path.relative_to(self.folder).as_posix()] = records
        return found

    def assign(self, pages: Mapping[str, Observation]) -> tuple[FormRecords, ...]:
        """Assign gold files to the pages (by path) whose controls have their keys. Each file goes to one page."""
        files = self.gold_files()
        if self.forms is not None:
            pairs = list(self.forms.items())
            missing = [file for _, file in pairs if file not in files]
            if missing:
                raise ConfigError(f"no gold records in {', '.join(missing)}. Known: {', '.join(files) or 'none'}.")
        else:
            pairs = _best_pairs(files, pages)
        return tuple(
            FormRecords(form=Path(file).stem, path=path, file=file, records=files[file])
            for path, file in sorted(pairs, key=lambda pair: pair[1])
        )


def _records(path: Path) -> tuple[Any, ...]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError, RecursionError):
        return ()
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        content = lists[0] if len(lists) == 1 else list(content.values())
    is_list = isinstance(content, list) and content and all(isinstance(item, dict) for item in content)
    return tuple(content) if is_list else ()


def _best_pairs(files: Mapping[str, Sequence[Any]], pages: Mapping[str, Observation]) -> list[tuple[str, str]]:
    """Greedily, from the best share of keys that name a control downwards; pages and files are used once.

    A file of one record, such as an application writes of what it received, stands back behind one of several records.
    """
    shares = [(_share(records, page), path, file) for file, records in files.items() for path, page in pages.items()]
    fitting = [item for item in shares if item[0] >= MIN_SHARE]
    pairs: list[tuple[str, str]] = []
    for _, path, file in sorted(fitting, key=lambda item: (len(files[item[2]]) == 1, -item[0], item[1], item[2])):
        if not any(path == pair[0] or file == pair[1] for pair in pairs):
            pairs.append((path, file))
    return pairs


def _share(records: Sequence[Any], page: Observation) -> float:
    """Share of matches among the keys of the longest record and the fields of the page (Dice coefficient)."""
    keys = max((list(record) for record in records), key=len)
    found = {key: find_controls(key, page) for key in keys}
    fields = {control.field for control in page.controls if control.kind not in ("button", "link")}
    met = {control.field for controls in found.values() for control in controls}
    num_found = sum(bool(controls) for controls in found.values())
    return 2 * num_found / (len(keys) + len(fields) + num_found - len(met)) if keys else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All records of a checkout: those that can be satisfied, as tasks, and the others.

    Attributes:
        tasks: Records that plans can satisfy.
        unsolvable: Records that none can.
        forms_without_records: Pages with a form that no file of records fits.
        files_without_form: Files of records that fit no page.
    """

    tasks: tuple[Task, ...]
    unsolvable: tuple[Unsolvable, ...]
    forms_without_records: tuple[str, ...] = ()
    files_without_form: tuple[str, ...] = ()

    def without(self, refusals: Mapping[str, str]) -> Catalogue:
        """Without the tasks that cannot be solved for these reasons, by id."""
        refused = [
            Unsolvable(
                task_id=task.id, form=task.site, number=int(task.id.rpartition("-")[2]), reason=refusals[task.id]
            )
            for task in self.tasks
            if task.id in refusals
        ]
        tasks = tuple(task for task in self.tasks if task.id not in refusals)
        return replace(self, tasks=tasks, unsolvable=(*self.unsolvable, *refused))

    def reasons(self) -> Counter[str]:
        """Count the records by reason."""
        return Counter(item.kind for item in self.unsolvable)


def make_catalogue(
    forms: Collection[FormRecords], seen: Mapping[str, Observed], files: Collection[str], keys: Mapping[str, str]
) -> Catalogue:
    """Read every record, and sort out those that no plan can satisfy.

    Args:
        forms: The forms with their records.
        seen: Observed form by path.
        files: Names of the fixtures that may be uploaded. For a required file that a record does not name, any file
            will do, called like its field.
        keys: Label or HTML name by gold key, for keys that name no control; "" for a key that no field belongs to.
    """
    tasks, unsolvable = [], []
    for form in forms:
        own = seen[form.path]
        for number, raw in enumerate(form.records):
            task_id = f"formfactory/{form.form}-{number}"
            record = {keys.get(key, key): value for key, value in raw.items() if keys.get(key, key)}
            try:
                gold = gold_of(record, own, files, has_stand_ins=True)
                if not any(set(item.wanted) != set(own.defaults.get(item.name, ())) for item in gold):
                    raise CannotHoldError("the untouched form holds all of it")
            except CannotHoldError as error:
                unsolvable.append(Unsolvable(task_id=task_id, form=form.path, number=number, reason=str(error)))
                continue
            tasks.append(
                Task(id=task_id, split="test", site=form.path, instruction=_instruction(raw, gold, keys), gold=gold)
            )
    return Catalogue(tasks=tuple(tasks), unsolvable=tuple(unsolvable))


def _instruction(record: Mapping[str, Any], gold: Collection[GoldField], keys: Mapping[str, str]) -> str:
    """The record as pairs, without what no field belongs to and what means that nothing is wanted.

    A file is called by its name, also one that the record leaves open.
    """
    named = {key: keys.get(key, key) for key in record}
    files = {item.label: item.wanted[0] for item in gold if item.kind == "file" and item.wanted}
    given = {label for item in gold if item.wanted for label in (item.label, *item.label.split(", "))}
    said = {
        key: files.get(named[key], value)
        for key, value in record.items()
        if named[key] and (named[key] in given or not is_nothing(value))
    }
    said |= {label: name for label, name in files.items() if label not in named.values()}
    return "; ".join(f"{key}: {spoken(value)}" for key, value in said.items())
