"""Values as they are typed: dates, numbers and times in the form that a field takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

# Month before day where both are numbers, as the benchmark's forms are American.
DATE_FORMATS = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%m/%d/%Y", "%m-%d-%Y", "%d.%m.%Y", "%d/%m/%Y",
    "%B %d, %Y", "%B %d %Y", "%b %d, %Y", "%b %d %Y", "%d %B %Y", "%d %b %Y", "%Y-%m-%dT%H:%M:%S",
)  # fmt: skip
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_GROUPED = re.compile(r"-?\d{1,3}(,\d{3})+(\.\d+)?")


class CannotHoldError(ValueError):
    """This control cannot hold this value; the text says why."""


def single(value: Any) -> Any:
    """The value, or the one of a list."""
    if isinstance(value, list) and len(value) != 1:
        raise CannotHoldError("a list of values for a field of one")
    return value[0] if isinstance(value, list) else value


def _date(value: Any) -> str:
    text = re.sub(r"(?<=\d)(st|nd|rd|th)\b", "", str(single(value)).strip())
    for form in DATE_FORMATS:
        try:
            return datetime.strptime(text, form).strftime("%Y-%m-%d")
        except ValueError:
            continue
    raise CannotHoldError("not a date")


def read_number(value: Any) -> str:
    """A number without currency, unit signs and grouping: `$1,250.00` is 1250.00.

    A comma that groups nothing does not belong to one.
    """
    text = re.sub(r"[\s_$€£%]", "", str(single(value)))
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
    "date": _date, "number": read_number, "text": _line, "email": _line, "tel": _line, "textarea": _text
}  # fmt: skip


def _parsed(value: Any, ways: Sequence[str], written: str, what: str) -> str:
    text = " ".join(str(single(value)).replace("a.m.", "AM").replace("p.m.", "PM").split())
    for way in ways:
        try:
            return datetime.strptime(text, way).strftime(written)
        except ValueError:
            continue
    raise CannotHoldError(f"not a {what}")


_TIMES = ("%H:%M", "%H:%M:%S", "%I:%M %p", "%I:%M%p", "%I %p", "%I%p")


def read_time(value: Any) -> str:
    """A time of day as `17:30`."""
    return _parsed(value, _TIMES, "%H:%M", "time")


def _month(value: Any) -> str:
    return _parsed(value, ("%Y-%m", "%m/%Y", "%B %Y", "%b %Y"), "%Y-%m", "month")


def _moment(value: Any) -> str:
    ways = [f"{day}{sign}{hour}" for day in DATE_FORMATS[:-1] for sign in "T " for hour in _TIMES]
    return _parsed(value, ways, "%Y-%m-%dT%H:%M", "date and time")


def _week(value: Any) -> str:
    found = re.fullmatch(r"(\d{4})[- ]?W(\d\d?)", str(single(value)).strip(), flags=re.I)
    if not found:
        raise CannotHoldError("not a week")
    return f"{found[1]}-W{int(found[2]):02d}"


def _colour(value: Any) -> str:
    text = str(single(value)).strip().lower()
    if not re.fullmatch(r"#[0-9a-f]{6}", text):
        raise CannotHoldError("not a colour")
    return text


# By the format that a control's options name.
FORMATS: dict[str, Callable[[Any], str]] = {
    "hh:mm": read_time, "YYYY-MM": _month, "YYYY-Www": _week, "YYYY-MM-DDThh:mm": _moment, "#rrggbb": _colour
}  # fmt: skip
