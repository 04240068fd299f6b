"""Gold keys and values as a form can take them: which controls a key speaks of, and the value as a control can hold it.

A value that the control cannot hold raises `CannotHoldError` with a reason that tables can count.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from dllm_rl.records.tasks import Control, Observation
from harness.recorder import folded

MIN_LIKENESS = 0.85
_NO_FIELDS = ("button", "link")


def find_controls(key: str, page: Observation) -> tuple[Control, ...]:
    """The controls of one field, or one box of a group where the key names that box; () where nothing fits."""
    wanted = folded(key)
    fields = [control for control in page.controls if control.kind not in _NO_FIELDS]
    readings = [(control, _names(control)) for control in fields]
    for rank in range(3):
        exact = [control for control, names in readings if rank < len(names) and folded(names[rank]) == wanted]
        if exact:
            return _whole(exact[0], fields, is_by_box=rank == _BOX or (rank == 0 and not exact[0].group))
    known = {folded(name): control for control, names in readings for name in names[:_BOX] if folded(name)}
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=MIN_LIKENESS)
    are_one = len({known[name].field for name in near}) == 1
    return _whole(known[near[0]], fields, is_by_box=False) if are_one else ()


# Which of the names of a control is that of the box alone.
_BOX = 2


def _names(control: Control) -> tuple[str, str, str]:
    """What a control is known by: its legend or label, its HTML name, and for an option of a group its own text."""
    is_option = control.kind == "radio" or bool(control.group)
    return (control.group if is_option else control.name, control.field, control.name)


def is_one_of_several(box: Control, page: Observation) -> bool:
    """Whether other boxes are sent under the same name, so that its own text must be told."""
    return sum(other.kind == "checkbox" and other.field == box.field for other in page.controls) > 1


def _whole(control: Control, fields: list[Control], *, is_by_box: bool) -> tuple[Control, ...]:
    """Radios and boxes of a group belong together, unless the key was the name of one box; so do parts of a number."""
    is_box = is_by_box and control.kind == "checkbox"
    if is_box or control.kind not in ("radio", "checkbox", *TYPED) or not control.field:
        return (control,)
    return tuple(other for other in fields if other.kind == control.kind and other.field == control.field)


YES = frozenset({"true", "yes", "on", "1", "y", "checked", "agree", "agreed", "i agree", "accept", "accepted"})
NO = frozenset({"false", "no", "off", "0", "n", "unchecked", "none", ""})
# Month before day where both are numbers, as the benchmark's forms are American.
DATE_FORMATS = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%m/%d/%Y", "%m-%d-%Y", "%d.%m.%Y", "%d/%m/%Y",
    "%B %d, %Y", "%B %d %Y", "%b %d, %Y", "%b %d %Y", "%d %B %Y", "%d %b %Y", "%Y-%m-%dT%H:%M:%S",
)  # fmt: skip
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


class CannotHoldError(ValueError):
    """This control cannot hold this value; the text says why."""


def is_nothing(value: Any) -> bool:
    """Return whether a gold value means that nothing is wanted."""
    return value is None or (isinstance(value, str) and folded(value) in ("", "none", "n a", "null"))


def wanted_values(value: Any, controls: Sequence[Control], page: Observation) -> tuple[str, ...]:
    """What the field of these controls must hold, in visible texts; () for nothing or an unticked box."""
    kind = controls[0].kind
    if isinstance(value, dict):
        raise CannotHoldError("other schema: the value is a record")
    if kind == "checkbox":
        return _boxes(value, controls, page)
    if is_nothing(value):
        return ()
    if kind == "radio":
        return (_option(value, [control.name for control in controls]),)
    if kind == "select":
        return (_option(_single(value), controls[0].options),)
    if kind == "multiselect":
        return tuple(_option(item, controls[0].options) for item in _several(value, controls[0].options))
    parts = value if isinstance(value, list) and len(controls) > 1 else [value]
    if len(parts) != len(controls):
        raise CannotHoldError(f"not a list of {len(controls)} values for as many boxes")
    return tuple(TYPED[kind](part) for part in parts)


def _single(value: Any) -> Any:
    if isinstance(value, list) and len(value) != 1:
        raise CannotHoldError("a list of values for a field of one")
    return value[0] if isinstance(value, list) else value


def _several(value: Any, options: Sequence[str]) -> list[Any]:
    """The items of a list, also of one that is written as a text; an option may itself hold a comma."""
    if isinstance(value, list):
        return value
    if any(folded(str(value)) == folded(option) for option in options):
        return [value]
    return [item for item in re.split(r"\s*[,;|\n]\s*", str(value)) if item]


def _option(value: Any, options: Sequence[str]) -> str:
    """The option that is written alike, but for case, blanks and punctuation."""
    text = _single(value)
    text = ("Yes" if text else "No") if isinstance(text, bool) else str(text)
    exact = [option for option in options if option == text]
    alike = exact or [option for option in options if folded(option) == folded(text)]
    if len(set(alike)) != 1:
        raise CannotHoldError("option absent")
    return alike[0]


def _boxes(value: Any, controls: Sequence[Control], page: Observation) -> tuple[str, ...]:
    """A group takes the options that are listed; a box on its own, or named by its key, takes yes or no."""
    if len(controls) > 1:
        names = [control.name for control in controls]
        return () if is_nothing(value) else tuple(_option(item, names) for item in _several(value, names))
    (box,) = controls
    text = "" if value is None else folded(str(_single(value)))
    ticked = box.name if is_one_of_several(box, page) else "on"
    if text in YES or text == folded(box.name):
        return (ticked,)
    if text in NO:
        return ()
    raise CannotHoldError("neither yes nor no for a box")


def _date(value: Any) -> str:
    text = re.sub(r"(?<=\d)(st|nd|rd|th)\b", "", str(_single(value)).strip())
    for form in DATE_FORMATS:
        try:
            return datetime.strptime(text, form).strftime("%Y-%m-%d")
        except ValueError:
            continue
    raise CannotHoldError("not a date")


def _number(value: Any) -> str:
    """Drop currency, unit signs and grouping: `$1,250.00` is 1250.00."""
    text = re.sub(r"[\s,_$€£%]", "", str(_single(value)))
    if not _NUMBER.fullmatch(text):
        raise CannotHoldError("not a number")
    return text


def _line(value: Any) -> str:
    """One line: a field of one line takes no line break."""
    return " ".join(_text(value).split())


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


TYPED: dict[str, Callable[[Any], str]] = {
    "date": _date, "number": _number, "text": _line, "email": _line, "tel": _line, "textarea": _text
}  # fmt: skip
