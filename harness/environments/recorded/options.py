"""Which option of a field a gold value means: one that is written alike, is sent as it, or holds it in its range."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.environments.recorded.written import CannotHoldError, read_number, read_time, single
from harness.recorder import folded


def find_option(value: Any, options: Sequence[str], texts: Mapping[str, str]) -> str:
    """The one option that a value means. Raises CannotHoldError where there is none, or several.

    In this order: the option that reads the same; the same but for case, blanks and punctuation; the one that is sent
    as this word; the same but for plurals and where words are parted; the one range that a number or a time lies in.

    Args:
        value: The gold value.
        options: Visible texts.
        texts: Visible text by HTML value.
    """
    one = single(value)
    text = ("Yes" if one else "No") if isinstance(one, bool) else str(one)
    ways: tuple[Callable[[str], bool], ...] = (
        lambda option: option == text,
        lambda option: folded(option) == folded(text),
        lambda option: (
            _is_word(text) and any(folded(sent) == folded(text) for sent, shown in texts.items() if shown == option)
        ),
        lambda option: _squeezed(option) == _squeezed(text),
        lambda option: _holds(option, text),
    )
    for is_meant in ways:
        found = {option for option in options if is_meant(option)}
        if len(found) == 1:
            return found.pop()
    raise CannotHoldError("option absent")


def _is_word(text: str) -> bool:
    """Whether an HTML value says what it is; one such as `2` may number the options."""
    return len(re.findall(r"[^\W\d_]", text)) > 1


def _squeezed(text: str) -> str:
    """Letters and digits without the s of plurals: `Life Time` and `Lifetime`, `Saving` and `Savings`."""
    return "".join(re.sub(r"(?<=[a-z]{3})s$", "", word) for word in folded(text).split())


_AMOUNT = r"[$€£]?\s*(\d[\d,]*(?:\.\d+)?)"
_AMOUNTS = re.compile(rf"{_AMOUNT}\s*(?:-|\u2013|to)\s*{_AMOUNT}")
_AND_MORE = re.compile(rf"{_AMOUNT}\s*\+")
_TIME = r"(\d{1,2}(?::\d\d)?\s*[AaPp]\.?[Mm]\.?)"
_TIMES = re.compile(rf"{_TIME}\s*(?:-|\u2013|to)\s*{_TIME}")


def _holds(option: str, text: str) -> bool:
    """Whether an option is a range of numbers, or names one of times, in which a value lies."""
    option = option.strip()
    try:
        if times := _TIMES.search(option):
            return read_time(times[1]) <= read_time(text) <= read_time(times[2])
        if amounts := _AMOUNTS.fullmatch(option):
            return float(read_number(amounts[1])) <= float(read_number(text)) <= float(read_number(amounts[2]))
        if least := _AND_MORE.fullmatch(option):
            return float(read_number(text)) >= float(read_number(least[1]))
    except CannotHoldError:
        return False
    return False
