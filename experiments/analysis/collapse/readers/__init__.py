"""Readers of training logs: what a file holds decides how it is read, not what it is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm_rl.errors import ConfigError
from experiments.analysis.collapse.names import is_known
from experiments.analysis.collapse.readers.consoles import trainer_console, verl_console
from experiments.analysis.collapse.readers.events import is_event_file, read_events
from experiments.analysis.collapse.readers.json_files import json_array, json_lines, refuse_torn, trainer_state
from experiments.analysis.collapse.readers.rows import one_a_step
from experiments.analysis.collapse.readers.tables import csv_runs

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format of text. read: rows of each run in it by name, "" where it holds one; None for another format."""

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
            raise ConfigError(f"'{path}' is no training log that can be read here.\n{what_is_read()}")
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
        raise ConfigError(f"'{path}' is no text.\n{what_is_read()}")
    return path.read_text(encoding="utf-8-sig", errors="replace")
