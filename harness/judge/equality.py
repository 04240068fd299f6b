"""When a received value is the wanted one: dates and numbers by value, several values as a set, text trimmed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from dllm_rl.records.tasks import ControlKind

Values = tuple[str, ...]


def normalised(values: Iterable[str]) -> Values:
    """Values without blanks around and double blanks inside, and without empty ones."""
    return tuple(text for value in values if (text := " ".join(value.split())))


def are_equal(kind: ControlKind, wanted: Values, got: Values) -> bool:
    """Whether these values mean the same for a control of this kind. The order of several values does not count."""
    read = _READERS.get(kind, str)
    left, right = (sorted(map(read, normalised(values)), key=repr) for values in (wanted, got))
    return left == right


def _date(text: str) -> date | str:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return text


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


_READERS = {"date": _date, "number": _number}
