"""Gold keys and values as a form can take them: which controls a key speaks of, and the value as a control can hold it.

A value that the control cannot hold raises `CannotHoldError` with a reason that tables can count.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from dllm_rl.records.tasks import Control, Observation
from harness.environments.recorded.options import find_option
from harness.environments.recorded.written import FORMATS, TYPED, CannotHoldError, single
from harness.recorder import folded

MIN_LIKENESS = 0.85
_NO_FIELDS = ("button", "link")


def find_controls(key: str, page: Observation) -> tuple[Control, ...]:
    """The controls of one field, or one box of a group where the key names that box; () where nothing fits.

    A remark in brackets behind a label, such as `(500 words max)`, may be left out where one field remains.
    """
    wanted = folded(key)
    fields = [control for control in page.controls if control.kind not in _NO_FIELDS]
    readings = [(control, _names(control)) for control in fields]
    for rank in range(3):
        exact = [control for control, names in readings if rank < len(names) and folded(names[rank]) == wanted]
        if exact:
            return _whole(exact[0], fields, is_by_box=rank == _BOX or (rank == 0 and not exact[0].group))
    bare = [control for control, names in readings if wanted == folded(_REMARK.sub("", names[0]))]
    if len({control.field for control in bare}) == 1:
        return _whole(bare[0], fields, is_by_box=not bare[0].group)
    known = {folded(name): control for control, names in readings for name in names[:_BOX] if folded(name)}
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=MIN_LIKENESS)
    are_one = len({known[name].field for name in near}) == 1
    return _whole(known[near[0]], fields, is_by_box=False) if are_one else ()


_REMARK = re.compile(r"\s*\([^()]*\)\W*$")
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


def wanted_values(
    value: Any, controls: Sequence[Control], page: Observation, texts: Mapping[str, str] = MappingProxyType({})
) -> tuple[str, ...]:
    """What the field of these controls must hold, in visible texts; () for nothing or an unticked box.

    Args:
        value: The gold value.
        controls: The controls of one field.
        page: The page that they stand on.
        texts: Visible text by HTML value, of what can be chosen in that field.
    """
    kind = controls[0].kind
    if isinstance(value, dict):
        raise CannotHoldError("other schema: the value is a record")
    if kind == "checkbox":
        return _boxes(value, controls, page, texts)
    if is_nothing(value, controls):
        return ()
    if kind == "radio":
        return (find_option(value, [control.name for control in controls], texts),)
    if kind == "select":
        return (find_option(single(value), controls[0].options, texts),)
    if kind == "multiselect":
        return tuple(find_option(item, controls[0].options, texts) for item in _several(value, controls[0].options))
    parts = value if isinstance(value, list) and len(controls) > 1 else [value]
    if len(parts) != len(controls):
        raise CannotHoldError(f"not a list of {len(controls)} values for as many boxes")
    return tuple(_written(part, control) for part, control in zip(parts, controls, strict=True))


def num_boxes(control: Control) -> int:
    """Over how many boxes of one character a value is written; 0 for a control that is one box."""
    found = _BOXES.fullmatch(control.options[0]) if control.kind == "text" and len(control.options) == 1 else None
    return int(found[1]) if found else 0


_BOXES = re.compile(r"(\d+) characters")


def _written(value: Any, control: Control) -> str:
    """A value as it is typed into this control, whose options may name the format."""
    if length := num_boxes(control):
        text = "".join(map(str, value)) if isinstance(value, list) else str(value).strip()
        if len(text) != length:
            raise CannotHoldError(f"not {length} characters for as many boxes")
        return text
    read = FORMATS.get(control.options[0]) if len(control.options) == 1 else None
    return read(value) if read is not None else TYPED[control.kind](value)


def _several(value: Any, options: Sequence[str]) -> list[Any]:
    """The items of a list, also of one that is written as a text; an option may itself hold a comma."""
    if isinstance(value, list):
        return value
    if any(folded(str(value)) == folded(option) for option in options):
        return [value]
    return [item for item in re.split(r"\s*[,;|\n]\s*", str(value)) if item]


def _boxes(value: Any, controls: Sequence[Control], page: Observation, texts: Mapping[str, str]) -> tuple[str, ...]:
    """A group takes the options that are listed; a box on its own, or named by its key, takes yes or no."""
    if len(controls) > 1:
        names = [control.name for control in controls]
        return (
            ()
            if is_nothing(value, controls)
            else tuple(find_option(item, names, texts) for item in _several(value, names))
        )
    (box,) = controls
    text = "" if value is None else folded(str(single(value)))
    ticked = box.name if is_one_of_several(box, page) else "on"
    if text in YES or text == folded(box.name):
        return (ticked,)
    if text in NO:
        return ()
    raise CannotHoldError("neither yes nor no for a box")
