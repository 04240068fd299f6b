"""Metrics in what trainers print: dicts of transformers and TRL (ms-swift and LLaMA-Factory, too), steps of verl."""

from __future__ import annotations

import re
from typing import Any

_NUMBER = r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf)"
# A colour code of a terminal, which logs of Ray workers carry.
_COLOUR = re.compile(r"\x1b\[[0-9;]*[mK]")

_DICT = re.compile(r"\{['\"][\w./@-]+['\"]: [^{}]*\}")
_ENTRY = re.compile(rf"['\"]([\w./@ -]+)['\"]: ['\"]?({_NUMBER})\b", re.IGNORECASE)
# The trainer's own progress bar, which counts steps, has no words before it; others (`Map: 100%|`) count other things.
_BAR = re.compile(r"(?:^|\s)\d+%\|[^|]*\|\s*(\d{1,15})/\d+ \[")
_TRAINER_KEYS = frozenset({"loss", "reward", "grad_norm", "learning_rate", "epoch"})

_VERL_STEP = re.compile(r"\bstep:(\d{1,15})(?=\s|$)")
_VERL_METRIC = re.compile(rf"([\w./@-]+):(?:(?:np|numpy)\.\w+\(|tensor\()?({_NUMBER})")
_VERL_CONTINUED = re.compile(
    rf"^(?:\([^()]*\)\s*)?\s*-\s+[\w./@-]+:(?:(?:np|numpy)\.\w+\(|tensor\()?{_NUMBER}\)?\s*-?$"
)


def trainer_console(text: str) -> list[dict[str, Any]] | None:
    """A dict of metrics a line, as the callbacks of transformers print. The step is that of the progress bar.

    Without a bar (it goes to another stream) rows are counted.
    """
    rows: list[dict[str, Any]] = []
    bar = None
    for line in _COLOUR.sub("", text).splitlines():
        for match in _BAR.finditer(line):
            bar = int(match[1])
        for found in _DICT.findall(line):
            row: dict[str, Any] = {name: float(value) for name, value in _ENTRY.findall(found)}
            if "train_runtime" not in row and (_TRAINER_KEYS & row.keys() or any(k.startswith("eval_") for k in row)):
                rows.append(row if bar is None else {"step": bar, **row})
    # The trainer adds the epoch to all that it prints; dicts without one are the user's own.
    rows = [row for row in rows if "epoch" in row] or rows
    if not rows:
        return None
    # A bar that stands still, or is not there at every row, is another's.
    steps = [row.get("step") for row in rows if _TRAINER_KEYS & row.keys()]
    if len(set(steps)) < len(steps) or None in steps:
        rows = _counted(rows)
    return rows


def _counted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Number the rows of training; an evaluation belongs to the row before it."""
    count = 0
    for row in rows:
        count += bool(_TRAINER_KEYS.difference({"epoch"}) & row.keys())
        row["step"] = count
    return rows


def verl_console(text: str) -> list[dict[str, Any]] | None:
    """`step:12 - actor/entropy:0.41 - ...`: a line a step, several steps on a line behind a bar, or a metric a line."""
    rows: list[dict[str, Any]] = []
    is_open = False
    for line in _COLOUR.sub("", text).splitlines():
        if is_open and _VERL_CONTINUED.match(line):
            rows[-1] |= _verl_metrics(line)
            continue
        starts = list(_VERL_STEP.finditer(line))
        ends = [match.start() for match in starts] + [len(line)]
        is_open = False
        for match, end in zip(starts, ends[1:], strict=True):
            rest = line[match.end() : end]
            if rest.lstrip().startswith("- ") or not rest.strip():
                rows.append({**_verl_metrics(rest), "step": int(match[1])})
                is_open = True
    rows = [row for row in rows if len(row) > 1]
    return rows or None


def _verl_metrics(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in _VERL_METRIC.findall(text)}
