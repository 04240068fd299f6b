"""Rows of numbers, one a step, from rows as a file holds them: which key is the step, what a restart leaves behind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

# Where the step of a row stands, the surest first: wandb counts calls in `_step`, whatever the trainer's step is.
_STEP_KEYS = (
    "train/global_step",
    "training/global_step",
    "trainer/global_step",
    "global_step",
    "step",
    "Step",
    "_step",
    "current_steps",
    "global_step/max_steps",
)

# Beyond this a number is no count of steps, and not all whole numbers can be told apart.
_LARGEST_STEP = 2**53


def one_a_step(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Keep what is a number, one row a step, in order. Rows of equal steps are joined, and the later value stays.

    Where the step goes back, the run was continued from there (or begun anew): what it had from that step on belongs to
    a branch that was abandoned. Rows without a step are left out where others have one; where none has, rows are
    counted.
    """
    key = next((key for key in _STEP_KEYS if any(_step(row.get(key)) is not None for row in rows)), None)
    found: dict[int, dict[str, Any]] = {}
    last = -1
    for index, row in enumerate(rows):
        step = index if key is None else _step(row.get(key))
        if step is None:
            continue
        if step < last:
            found = {before: kept for before, kept in found.items() if before < step}
        last = step
        found.setdefault(step, {}).update(numbers(row))
        found[step]["step"] = step
    return list(found.values())


def _step(value: Any) -> int | None:
    """A step from what a row holds: a number, or `done/total` as ms-swift writes."""
    if isinstance(value, str):
        value = value.partition("/")[0]
    number = _number(value)
    return int(number) if number is not None and abs(number) < _LARGEST_STEP else None


def numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """What can be a metric. A null stands for a number that was not finite, as JSON has no other way to say it."""
    return {name: _number(value) for name, value in row.items() if value is None or _number(value) is not None}


def _number(value: Any) -> float | int | None:
    """A number, or text that is one: consoles of transformers and exports of wandb write numbers as text."""
    if not isinstance(value, int | float | str):
        return None
    try:
        return float(value) if isinstance(value, str) or abs(value) > _LARGEST_STEP else value
    except ValueError:
        return None
    except OverflowError:
        return math.inf
