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
_GROUPED = re.compile(r"-?\d{1,3}(,\d{3})+(\.\d+)?")


class CannotHoldError(ValueError):
    """This control cannot hold this value; the text says why."""


_WORDS_FOR_NOTHING = ("none", "n a", "null")


def is_nothing(value: Any, controls: Sequence[Control] = ()) -> bool:
    """Return whether a gold value means that nothing is wanted.

    A word such as `None` means nothing but where text is written, and where an option is called so.
    """
    if value is None or value == "":
        return True
    if not isinstance(value, str) or folded(value) not in _WORDS_FOR_NOTHING:
        return isinstance(value, str) and not value.strip()
    options = [name for control in controls for name in (*control.options, _option_name(control))]
    is_written = any(control.kind in ("text", "textarea") for control in controls)
    return not is_written and folded(value) not in map(folded, options)


def _option_name(control: Control) -> str:
    return control.name if control.kind in ("radio", "checkbox") else ""


def wanted_values(value: Any, controls: Sequence[Control], page: Observation) -> tuple[str, ...]:
    """What the field of these controls must hold, in visible texts; () for nothing or an unticked box."""
    kind = controls[0].kind
    if isinstance(value, dict):
        raise CannotHoldError("other schema: the value is a record")
    if kind == "checkbox":
        return _boxes(value, controls, page)
    if is_nothing(value, controls):
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
    return tuple(_written(part, control) for part, control in zip(parts, controls, strict=True))


def _written(value: Any, control: Control) -> str:
    """A value as it is typed into this control, whose options may name the format."""
    read = FORMATS.get(control.options[0]) if len(control.options) == 1 else None
    return read(value) if read is not None else TYPED[control.kind](value)


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
        return () if is_nothing(value, controls) else tuple(_option(item, names) for item in _several(value, names))
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
    """Drop currency, unit signs and grouping: `$1,250.00` is 1250.00. A comma that groups nothing is no part of one."""
    text = re.sub(r"[\s_$€£%]", "", str(_single(value)))
    text = text.replace(",", "") if _GROUPED.fullmatch(text) else text
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


def _parsed(value: Any, ways: Sequence[str], written: str, what: str) -> str:
    text = " ".join(str(_single(value)).replace("a.m.", "AM").replace("p.m.", "PM").split())
    for way in ways:
        try:
            return datetime.strptime(text, way).strftime(written)
        except ValueError:
            continue
    raise CannotHoldError(f"not a {what}")


_TIMES = ("%H:%M", "%H:%M:%S", "%I:%M %p", "%I:%M%p", "%I %p", "%I%p")


def _time(value: Any) -> str:
    return _parsed(value, _TIMES, "%H:%M", "time")


def _month(value: Any) -> str:
    return _parsed(value, ("%Y-%m", "%m/%Y", "%B %Y", "%b %Y"), "%Y-%m", "month")


def _moment(value: Any) -> str:
    ways = [f"{day}{sign}{hour}" for day in DATE_FORMATS[:-1] for sign in "T " for hour in _TIMES]
    return _parsed(value, ways, "%Y-%m-%dT%H:%M", "date and time")


def _week(value: Any) -> str:
    found = re.fullmatch(r"(\d{4})[- ]?W(\d\d?)", str(_single(value)).strip(), flags=re.I)
    if not found:
        raise CannotHoldError("not a week")
    return f"{found[1]}-W{int(found[2]):02d}"


def _colour(value: Any) -> str:
    text = str(_single(value)).strip().lower()
    if not re.fullmatch(r"#[0-9a-f]{6}", text):
        raise CannotHoldError("not a colour")
    return text


# By the format that a control's options name.
FORMATS: dict[str, Callable[[Any], str]] = {
    "hh:mm": _time, "YYYY-MM": _month, "YYYY-Www": _week, "YYYY-MM-DDThh:mm": _moment, "#rrggbb": _colour
}  # fmt: skip
