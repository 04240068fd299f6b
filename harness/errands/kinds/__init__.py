"""The kinds of errands: each file holds kinds that are difficult for one reason."""

from __future__ import annotations

from harness.errands.kinds.base import Draft, Kind
from harness.errands.kinds.lists import basket, edit, long_list, search
from harness.errands.kinds.reading import answer, code, compare, lookup
from harness.errands.kinds.refusals import limited, reformat, taken
from harness.errands.kinds.trouble import busy, expired, notice, queue
from harness.errands.kinds.wizards import branch, wizard

KINDS: dict[str, Kind] = {
    "wizard": wizard,
    "branch": branch,
    "reformat": reformat,
    "taken": taken,
    "limited": limited,
    "lookup": lookup,
    "code": code,
    "compare": compare,
    "answer": answer,
    "search": search,
    "long_list": long_list,
    "basket": basket,
    "edit": edit,
    "busy": busy,
    "queue": queue,
    "notice": notice,
    "expired": expired,
}

__all__ = ["KINDS", "Draft", "Kind"]
