"""From a key of the gold to the controls it speaks of: by accessible name, legend or HTML name, exact before near."""

from __future__ import annotations

import difflib
import re

from dllm_rl.records.tasks import Control, Page

MIN_LIKENESS = 0.85
_NO_FIELDS = ("button", "link")


def folded(text: str) -> str:
    """Words only: `Date of Birth (required):` and `dateOfBirth` both lose what is not a word."""
    plain = re.sub(r"\((optional|required)\)", " ", text, flags=re.I)
    plain = re.sub(r"(?<=[a-z\d])(?=[A-Z])", " ", plain)
    return " ".join(re.findall(r"[^\W_]+", plain.casefold()))


def find_controls(key: str, page: Page) -> tuple[Control, ...]:
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


def is_one_of_several(box: Control, page: Page) -> bool:
    """Whether other boxes are sent under the same name, so that its own text must be told."""
    return sum(other.kind == "checkbox" and other.field == box.field for other in page.controls) > 1


def _whole(control: Control, fields: list[Control], *, is_by_box: bool) -> tuple[Control, ...]:
    """Radios and boxes of a group belong together, unless the key was the name of one box."""
    is_box = is_by_box and control.kind == "checkbox"
    if is_box or control.kind not in ("radio", "checkbox") or not control.field:
        return (control,)
    return tuple(other for other in fields if other.kind == control.kind and other.field == control.field)
