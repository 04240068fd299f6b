"""From gold records to tasks: what each field must hold, and which records no plan can satisfy, with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dllm_rl.records.plan import Action, quote, render_plan
from dllm_rl.records.tasks import Control, GoldField, Page, Task
from harness.environments.formfactory.canonical import CannotHoldError, is_nothing, wanted_values
from harness.environments.formfactory.checkout import FormRecords
from harness.environments.formfactory.names import find_controls, folded
from harness.sites.gold import actions_of

_NO_SUBMIT = frozenset({"reset", "clear", "cancel", "back", "clear form", "reset form"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsolvable:
    """A record that no plan can satisfy. number: its place in the file, from 0. reason: begins with the key."""

    task_id: str
    form: str
    number: int
    reason: str

    @property
    def kind(self) -> str:
        """The reason without the key, as tables count it."""
        return self.reason.split(": ", 1)[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All records of a checkout: those that can be satisfied, as tasks, and the others."""

    tasks: tuple[Task, ...]
    unsolvable: tuple[Unsolvable, ...]

    def reasons(self) -> Counter[str]:
        """How often each reason stands in the way."""
        return Counter(item.kind for item in self.unsolvable)

    def all_tasks(self, *, keeps_unsolvable: bool = False) -> tuple[Task, ...]:
        """The tasks; with keeps_unsolvable also the others, without gold, so that they can never succeed."""
        others = tuple(
            Task(id=item.task_id, split="test", site=item.form, instruction="", gold=()) for item in self.unsolvable
        )
        return (*self.tasks, *others) if keeps_unsolvable else self.tasks


def make_catalogue(
    forms: Collection[FormRecords],
    pages: Mapping[str, Page],
    defaults: Mapping[str, Mapping[str, tuple[str, ...]]],
    files: Collection[str],
) -> Catalogue:
    """Read every record. pages, defaults: by path of the form; files: names of the fixtures that may be uploaded."""
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


def gold_of(record: Mapping[str, Any], page: Page, files: Collection[str]) -> tuple[GoldField, ...]:
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


def _gold_field(key: str, value: Any, page: Page, files: Collection[str]) -> GoldField:
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


def oracle_plan(task: Task, page: Page) -> str:
    """The plan that gives every gold value and sends the form."""
    gold = {item.name: item for item in task.gold}
    actions = [
        action
        for control in page.controls
        if control.field in gold and control.kind != "button"
        for action in actions_of(control, gold[control.field], page)
    ]
    buttons = [item for item in page.controls if item.kind == "button" and folded(item.name) not in _NO_SUBMIT]
    if buttons:
        actions.append(Action(verb="submit", ref=buttons[-1].ref))
    return render_plan(tuple(actions))
