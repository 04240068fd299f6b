"""Metrics in event files of TensorBoard, read with its own package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from dllm_rl.errors import ConfigError

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
