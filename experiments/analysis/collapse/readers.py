"""Readers of training logs: what a file holds decides how it is read, not what it is called.

Formats come from JSON, CSV, event files of TensorBoard and `consoles`; all end as rows of numbers, one a step."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm_rl.errors import ConfigError
from dllm_rl.files import lines_of
from experiments.analysis.collapse.consoles import trainer_console, verl_console
from experiments.analysis.collapse.series import is_known

# wandb counts calls in it, whatever the trainer's step is.
_WANDB_STEP = "_step"
# Where the step of a row stands, the surest first.
_STEP_KEYS = (
    "train/global_step",
    "training/global_step",
    "trainer/global_step",
    "global_step",
    "step",
    "Step",
    _WANDB_STEP,
    "current_steps",
    "global_step/max_steps",
)

# A larger number cannot be a count of steps, and floats no longer tell all whole numbers apart.
_LARGEST_STEP = 2**53


def one_a_step(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Keep what is a number, one row a step, in order. Rows of equal steps are joined, and the later number stays.

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
        joined = found.setdefault(step, {})
        # A number that was logged at a step was not lost by what is logged there later.
        joined.update({name: value for name, value in numbers(row).items() if value is not None or name not in joined})
        joined["step"] = step
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


# What json raises: torn text, numbers of thousands of digits, brackets without end.
_BROKEN = (ValueError, RecursionError)


def json_lines(text: str) -> list[dict[str, Any]] | None:
    """One JSON object a line. A last line that was torn by a kill is left out; verl puts the numbers under `data`."""
    lines = [line for line in lines_of(text) if line.strip()]
    if not lines or not lines[0].lstrip().startswith("{"):
        return None
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except _BROKEN:
            break
    # A file that is one JSON document spreads it over lines.
    if len(rows) < len(lines) - 1 or not rows or not all(isinstance(row, dict) for row in rows):
        return None
    return [_line(row) for row in rows]


def _line(row: dict[str, Any]) -> dict[str, Any]:
    if isinstance(row.get("data"), dict):
        return {**row["data"], "step": row.get("step")}
    return _without_nulls(row) if _WANDB_STEP in row else row


def _without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a table, whose nulls are cells that nothing was logged in. wandb has text for what is not finite."""
    return {name: value for name, value in row.items() if value is not None}


def trainer_state(text: str) -> list[dict[str, Any]] | None:
    """`log_history` of a trainer_state.json, evaluations included; without its last entry, which sums up the run."""
    state = _document(text, "{")
    if not isinstance(state, dict) or not isinstance(state.get("log_history"), list):
        return None
    return [row for row in state["log_history"] if isinstance(row, dict) and "train_runtime" not in row]


def json_array(text: str) -> list[dict[str, Any]] | None:
    """A JSON array of rows, as `DataFrame.to_json(orient="records")` writes a history of wandb."""
    rows = _document(text, "[")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        return None
    return [_without_nulls(row) for row in rows]


def _document(text: str, opening: str) -> Any:
    if not text.lstrip().startswith(opening):
        return None
    try:
        return json.loads(text)
    except _BROKEN:
        return None


def refuse_torn(text: str, name: str) -> None:
    """Raise ConfigError where a JSON document breaks off, which is another mistake than a format that is not known."""
    if not name.endswith(".json"):
        return
    try:
        json.loads(text)
    except _BROKEN as error:
        raise ConfigError(f"'{name}' is not valid JSON ({error}); was its writer stopped half way?") from None


# wandb adds the lowest and highest value of each point of a chart.
_BOUNDS = ("__MIN", "__MAX")
_RUN_AND_METRIC = " - "


def csv_runs(text: str) -> dict[str, list[dict[str, Any]]] | None:
    """Rows of each run by its name. A chart's export has a column a run, `<run> - <metric>`; others hold one run."""
    first = text.partition("\n")[0]
    if "," not in first or first.lstrip().startswith(("{", "[")):
        return None
    try:
        table = list(csv.DictReader(io.StringIO(text)))
    except csv.Error:
        return None
    if not table:
        return None
    columns = [name for name in table[0] if name and not name.endswith(_BOUNDS)]
    shared = [name for name in columns if _RUN_AND_METRIC not in name]
    runs: dict[str, dict[str, str]] = {}
    for name in columns:
        run, is_of_run, metric = name.rpartition(_RUN_AND_METRIC)
        if is_of_run:
            runs.setdefault(run, {})[name] = metric
    if not runs:
        return {"": [_row(row, {name: name for name in columns}) for row in table]}
    return {
        run: [_row(row, names | {name: name for name in shared}) for row in table if any(row[name] for name in names)]
        for run, names in runs.items()
    }


def _row(row: dict[str, str], names: dict[str, str]) -> dict[str, Any]:
    """A row under the metrics' own names, without empty cells: they are metrics that were not logged."""
    return {metric: row[name] for name, metric in names.items() if row[name]}


EVENT_FILES = "events.out.tfevents*"


def is_event_file(path: Path) -> bool:
    """Whether a file is one that TensorBoard reads, by its name."""
    return path.match(EVENT_FILES)


def read_events(paths: list[Path]) -> list[dict[str, Any]]:
    """All scalars of one run's event files, one row a step. Files follow one another as they were begun.

    Each tag is read for itself: where its step goes back, the run was continued from there.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError("event files of TensorBoard need its package: pip install 'dllm-rl[tensorboard]'")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util import tensor_util

    tags: dict[str, dict[int, float]] = {}
    for path in sorted(paths):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                number = tensor_util.make_ndarray(value.tensor) if value.HasField("tensor") else None
                if number is not None and number.shape == () and number.dtype.kind in "fi":
                    _put(tags.setdefault(value.tag, {}), event.step, float(number))
    rows: dict[int, dict[str, Any]] = {}
    for tag, values in tags.items():
        for step, number in values.items():
            rows.setdefault(step, {"step": step})[tag] = number
    return [rows[step] for step in sorted(rows)]


def _put(values: dict[int, float], step: int, number: float) -> None:
    """Add a value; later ones of a branch that is abandoned by it go."""
    while values and next(reversed(values)) >= step:
        values.popitem()
    values[step] = number


Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format of text.

    Attributes:
        read: Rows of each run in it by name, "" where it holds one; None for another format.
    """

    title: str
    read: Callable[[str], dict[str, Rows] | None]


def _single(read: Callable[[str], Rows | None]) -> Callable[[str], dict[str, Rows] | None]:
    return lambda text: None if (rows := read(text)) is None else {"": rows}


FORMATS: tuple[Format, ...] = (
    Format(title="trainer_state.json of TRL, transformers, ms-swift or LLaMA-Factory", read=_single(trainer_state)),
    Format(
        title="JSON lines: our metrics.jsonl, verl's file logger, a history of wandb, logging.jsonl of ms-swift, "
        "trainer_log.jsonl of LLaMA-Factory",
        read=_single(json_lines),
    ),
    Format(title="a JSON array of rows, as pandas writes a history of wandb", read=_single(json_array)),
    Format(title="what verl prints (`step:1 - critic/score/mean:0.5 - ...`)", read=_single(verl_console)),
    Format(
        title="what TRL and transformers print (`{'loss': 0.1, 'reward': 0.5, ...}`)", read=_single(trainer_console)
    ),
    Format(title="CSV: an export of a wandb chart or history, or any table with a step and known names", read=csv_runs),
)
EVENTS_TITLE = "event files of TensorBoard (events.out.tfevents...)"
TITLES = (*(item.title for item in FORMATS), EVENTS_TITLE)


def read_runs(path: Path) -> dict[str, Rows]:
    """Rows of each run in a file, one a step, by the name that the file gives it; "" where it holds one run.

    Raises ConfigError, with the list of what can be read, where nothing fits or no metric in it is known.
    """
    if is_event_file(path):
        found = {"": read_events([path])}
    else:
        text = _text(path)
        if not text.strip() and path.suffix == ".jsonl":
            return {"": []}
        found = next((runs for item in FORMATS if (runs := item.read(text)) is not None), None)
        if found is None:
            refuse_torn(text, str(path))
            raise ConfigError(f"'{path}' is not a training log that can be read here.\n{what_is_read()}")
    runs = {name: one_a_step(rows) for name, rows in found.items()}
    known = {name: rows for name, rows in runs.items() if any(is_known(metric) for row in rows for metric in row)}
    if not known:
        names = sorted({metric for rows in runs.values() for row in rows for metric in row} - {"step"})
        shown = f"it has {', '.join(names[:8])}" if names else "it has no numbers"
        raise ConfigError(f"'{path}' holds no metric that is known here: {shown}.\n{what_is_read()}")
    return known


def what_is_read() -> str:
    """The list of formats, for an error."""
    return "What is read:\n" + "\n".join(f"- {title}" for title in TITLES)


def _text(path: Path) -> str:
    """A file as text. Redirection in a Windows shell writes UTF-16."""
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return path.read_text(encoding="utf-16", errors="replace")
    if b"\0" in head:
        raise ConfigError(f"'{path}' is not text.\n{what_is_read()}")
    return path.read_text(encoding="utf-8-sig", errors="replace")
