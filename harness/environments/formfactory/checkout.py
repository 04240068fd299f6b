"""What a checkout holds: its application, the pages with forms that it links to, its gold records, and tasks from them.

Where things stand in the folder is found out rather than assumed: pages by following links, records as the JSON files
that are lists of records, and which records belong to which page by the names they share with its controls.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from dllm_rl.errors import ConfigError
from dllm_rl.records.plan import Action, quote, render_plan
from dllm_rl.records.tasks import Control, GoldField, Observation, Task
from harness.environments.formfactory.canonical import (
    TYPED,
    CannotHoldError,
    find_controls,
    is_nothing,
    wanted_values,
)
from harness.recorder import folded
from harness.sites.oracle import actions_of

MIN_SHARE = 0.5
MAX_PAGES = 300


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
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return ()
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        content = lists[0] if len(lists) == 1 else list(content.values())
    is_list = isinstance(content, list) and content and all(isinstance(item, dict) for item in content)
    return tuple(content) if is_list else ()


def _best_pairs(files: Mapping[str, Sequence[Any]], pages: Mapping[str, Observation]) -> list[tuple[str, str]]:
    """Greedily, from the best share of keys that name a control downwards; pages and files are used once."""
    shares = [(_share(records, page), path, file) for file, records in files.items() for path, page in pages.items()]
    pairs: list[tuple[str, str]] = []
    for share, path, file in sorted(shares, key=lambda item: (-item[0], item[1], item[2])):
        is_used = any(path == pair[0] or file == pair[1] for pair in pairs)
        if share >= MIN_SHARE and not is_used:
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


class PageLinks(HTMLParser):
    """Links of a page to the same host, and whether it has a form to be sent."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.links: list[str] = []
        self.has_form = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for every tag."""
        if tag == "form":
            self.has_form = True
        target = dict(attrs).get("href") if tag == "a" else None
        if target:
            parts = urlsplit(urljoin(f"http://here{self.path}", target))
            if parts.netloc == "here" and not re.search(r"\.(css|js|png|jpe?g|svg|pdf|zip|json)$", parts.path):
                self.links.append(parts.path)


_NO_SUBMIT = frozenset({"reset", "clear", "cancel", "back", "clear form", "reset form"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsolvable:
    """A record that no plan can satisfy.

    Attributes:
        task_id: Id that its task would have.
        form: Path of the form.
        number: Its place in the file, from 0.
        reason: Why, beginning with the key.
    """

    task_id: str
    form: str
    number: int
    reason: str

    @property
    def kind(self) -> str:
        """The reason without the key."""
        return self.reason.split(": ", 1)[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All records of a checkout: those that can be satisfied, as tasks, and the others."""

    tasks: tuple[Task, ...]
    unsolvable: tuple[Unsolvable, ...]

    def reasons(self) -> Counter[str]:
        """Count the records by reason."""
        return Counter(item.kind for item in self.unsolvable)


def make_catalogue(
    forms: Collection[FormRecords],
    pages: Mapping[str, Observation],
    defaults: Mapping[str, Mapping[str, tuple[str, ...]]],
    files: Collection[str],
) -> Catalogue:
    """Read every record, and sort out those that no plan can satisfy.

    Args:
        forms: The forms with their records.
        pages: Observed page by path of the form.
        defaults: What the untouched form holds, by path of the form.
        files: Names of the fixtures that may be uploaded.
    """
    tasks, unsolvable = [], []
    for form in forms:
        for number, record in enumerate(form.records):
            task_id = f"formfactory/{form.form}-{number}"
            try:
                gold = gold_of(record, pages[form.path], files)
                if not any(set(item.wanted) != set(defaults[form.path].get(item.name, ())) for item in gold):
                    raise CannotHoldError("the untouched form holds all of it")
            except CannotHoldError as error:
                unsolvable.append(Unsolvable(task_id=task_id, form=form.path, number=number, reason=str(error)))
                continue
            words = "; ".join(f"{key}: {_spoken(value)}" for key, value in record.items() if not is_nothing(value))
            tasks.append(Task(id=task_id, split="test", site=form.path, instruction=words, gold=gold))
    return Catalogue(tasks=tuple(tasks), unsolvable=tuple(unsolvable))


def gold_of(record: Mapping[str, Any], page: Observation, files: Collection[str]) -> tuple[GoldField, ...]:
    """What each field must hold. Raises CannotHoldError, its text beginning with the key."""
    found: dict[str, GoldField] = {}
    for key, value in record.items():
        try:
            item = _gold_field(key, value, page, files)
        except CannotHoldError as error:
            raise CannotHoldError(f"{key}: {error}") from None
        if item.name in found:
            item = _joined(found[item.name], item)
        found[item.name] = item
    for control in page.controls:
        if control.required and control.kind != "button" and not _is_given(control, found):
            reason = "required file without fixture" if control.kind == "file" else "required field without gold"
            raise CannotHoldError(f"{control.group or control.name or control.field}: {reason}")
    return tuple(found.values())


def _is_given(control: Control, found: Mapping[str, GoldField]) -> bool:
    gold = found.get(control.field)
    return bool(control.value) if gold is None else bool(gold.wanted)


def _gold_field(key: str, value: Any, page: Observation, files: Collection[str]) -> GoldField:
    controls = find_controls(key, page)
    if not controls:
        raise CannotHoldError("gold key without control")
    control = controls[0]
    if not control.field:
        raise CannotHoldError("control without a name, which is never sent")
    is_file = control.kind == "file"
    wanted = _fixture(value, control, files) if is_file else wanted_values(value, controls, page)
    return GoldField(name=control.field, kind=control.kind, wanted=wanted, label=key)


def _joined(one: GoldField, other: GoldField) -> GoldField:
    """Several keys may speak of boxes that are sent under one name; other fields have one key."""
    if one.kind != "checkbox":
        raise CannotHoldError(f"{other.label}: a second key for the field of {one.label}")
    return GoldField(
        name=one.name, kind=one.kind, wanted=(*one.wanted, *other.wanted), label=f"{one.label}, {other.label}"
    )


def _fixture(value: Any, control: Control, files: Collection[str]) -> tuple[str, ...]:
    """The fixture that the gold names; else, where a file is required, the one that is called like the field."""
    if not is_nothing(value) and str(value) in files:
        return (str(value),)
    alike = [name for name in files if folded(name.rsplit(".", 1)[0]) in (folded(control.field), folded(control.name))]
    if alike and (control.required or not is_nothing(value)):
        return (alike[0],)
    if control.required:
        raise CannotHoldError("required file without fixture")
    if not is_nothing(value):
        raise CannotHoldError("file without fixture")
    return ()


def _spoken(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return quote(value) if isinstance(value, str) and any(letter in value for letter in '";\n\\') else str(value)


def _own(gold: GoldField, control: Control) -> GoldField:
    """The part of the gold that belongs to this one of several boxes that share a field."""
    is_part = control.kind in TYPED and len(gold.wanted) > 1
    return replace(gold, wanted=gold.wanted[control.place : control.place + 1]) if is_part else gold


def oracle_plan(task: Task, page: Observation) -> str:
    """The plan that gives every gold value and sends the form."""
    gold = {item.name: item for item in task.gold}
    actions = [
        action
        for control in page.controls
        if control.field in gold and control.kind != "button"
        for action in actions_of(control, _own(gold[control.field], control), page)
    ]
    buttons = [item for item in page.controls if item.kind == "button" and folded(item.name) not in _NO_SUBMIT]
    if buttons:
        actions.append(Action(verb="submit", ref=buttons[-1].ref))
    return render_plan(tuple(actions))
