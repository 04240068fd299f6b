"""What each field of an observed form must hold, from values by label, or why no plan can bring that about."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dllm_rl.records.plan import quote
from dllm_rl.records.tasks import Condition, Control, GoldField, Observation
from harness.environments.recorded.canonical import is_nothing, wanted_values
from harness.environments.recorded.observed import Observed
from harness.environments.recorded.written import TYPED, CannotHoldError
from harness.recorder import folded


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


def gold_of(
    record: Mapping[str, Any],
    form: Observed,
    files: Collection[str],
    *,
    is_whole: bool = True,
    has_stand_ins: bool = False,
) -> tuple[GoldField, ...]:
    """What each field must hold. Raises CannotHoldError, its text beginning with the key.

    Args:
        record: Value by key.
        form: The observed form.
        files: Names of the files that may be uploaded.
        is_whole: Whether the record must give all that the form requires.
        has_stand_ins: Whether a required file that the record does not name is any, called like its field.
    """
    found: dict[str, GoldField] = {}
    upload = _Files(known=files, has_stand_ins=has_stand_ins)
    for key, value in record.items():
        try:
            item = _gold_field(key, value, form, upload)
        except CannotHoldError as error:
            raise CannotHoldError(f"{key}: {error}") from None
        if item.name in found:
            item = _joined(found[item.name], item)
        found[item.name] = item
    for control in form.page.controls if is_whole else ():
        is_there = control.condition is None or _holds(control.condition, form.page, found)
        if not control.required or not is_there or control.kind == "button" or _is_given(control, found):
            continue
        label = control.group or control.name or control.field
        if control.kind != "file":
            raise CannotHoldError(f"{label}: required field without gold")
        try:
            wanted = upload.of(None, control)
        except CannotHoldError as error:
            raise CannotHoldError(f"{label}: {error}") from None
        found[control.field] = GoldField(name=control.field, kind="file", wanted=wanted, label=label)
    return tuple(found.values())


def _holds(condition: Condition, page: Observation, found: Mapping[str, GoldField]) -> bool:
    """Whether the gold itself makes a control appear; what a click opens may stay closed."""
    decider = page.control(condition.ref)
    gold = found.get(decider.field) if decider is not None else None
    if decider is None or gold is None:
        return False
    if decider.kind == "checkbox":
        return bool(gold.wanted) == (condition.value == "checked")
    return condition.value in gold.wanted


def _is_given(control: Control, found: Mapping[str, GoldField]) -> bool:
    gold = found.get(control.field)
    return bool(control.value) if gold is None else bool(gold.wanted)


def _gold_field(key: str, value: Any, form: Observed, upload: _Files) -> GoldField:
    controls = form.find(key)
    if not controls:
        raise CannotHoldError("gold key without control")
    control = controls[0]
    if not control.field:
        raise CannotHoldError("control without a name, which is never sent")
    texts = form.choices.get(control.field, {})
    is_file = control.kind == "file"
    wanted = upload.of(value, control) if is_file else wanted_values(value, controls, form.page, texts)
    return GoldField(name=control.field, kind=control.kind, wanted=wanted, label=key)


def _joined(one: GoldField, other: GoldField) -> GoldField:
    """Several keys may speak of boxes that are sent under one name; other fields have one key."""
    if one.kind != "checkbox":
        raise CannotHoldError(f"{other.label}: a second key for the field of {one.label}")
    return GoldField(
        name=one.name, kind=one.kind, wanted=(*one.wanted, *other.wanted), label=f"{one.label}, {other.label}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """Files that may be uploaded."""

    known: Collection[str]
    has_stand_ins: bool

    def of(self, value: Any, control: Control) -> tuple[str, ...]:
        """The file that the gold names; else, where a file is required, the one that is called like the field."""
        if not is_nothing(value) and str(value) in self.known:
            return (str(value),)
        called = (folded(control.field), folded(control.name))
        alike = [name for name in self.known if folded(name.rpartition(".")[0]) in called]
        if alike and (control.required or not is_nothing(value)):
            return (alike[0],)
        if control.required and is_nothing(value) and self.has_stand_ins:
            return (f"{'_'.join(folded(control.field).split())}.pdf",)
        if control.required:
            raise CannotHoldError("required file without fixture")
        if not is_nothing(value):
            raise CannotHoldError("file without fixture")
        return ()


def spoken(value: Any) -> str:
    """A value as an instruction says it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return quote(value) if isinstance(value, str) and any(letter in value for letter in '";\n\\') else str(value)


def own_part(gold: GoldField, control: Control) -> GoldField:
    """The part of the gold that belongs to this one of several boxes that share a field."""
    is_part = control.kind in TYPED and len(gold.wanted) > 1
    return replace(gold, wanted=gold.wanted[control.place : control.place + 1]) if is_part else gold
