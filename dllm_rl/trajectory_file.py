"""A trajectory as JSON lines: one for what all rows share, then one a row with its events; read back bit for bit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dllm_rl.constraint import Constraint
from dllm_rl.errors import ConfigError
from dllm_rl.events import Events, Kind, sort_events
from dllm_rl.types import Trajectory

_FORMAT = "trajectory"
_KINDS = [kind.name.lower() for kind in Kind]
_SHARED = ("num_steps", "slot_size", "is_approximate", "flow_law")
_TYPES = {
    "step": torch.int32,
    "column": torch.int32,
    "token": torch.int32,
    "kind": torch.uint8,
    "log_prob": torch.float32,
    "entropy": torch.float32,
}


def to_jsonl(trajectory: Trajectory) -> str:
    """The record as text. `kind` counts into the first line's `kinds`; `initial` is one number where all are equal.

    A grammar is compiled from its page and not written; the first line says whether there was one.
    """
    events = trajectory.events
    head = {
        "format": _FORMAT,
        "rows": len(events.end),
        "length": events.length,
        "kinds": _KINDS,
        **{name: getattr(trajectory, name) for name in _SHARED},
        "time": None if trajectory.time is None else _plain(trajectory.time),
        "is_constrained": trajectory.constraint is not None,
    }
    return "\n".join(json.dumps(line) for line in [head, *(_row(trajectory, row) for row in range(len(events.end)))])


def from_jsonl(text: str, *, constraint: Constraint | None = None) -> Trajectory:
    """The record of `to_jsonl`. constraint: what its draws were constrained by.

    Raises ConfigError where the text is something else, or where the draws were constrained and nothing is given.
    """
    head, rows = _parsed(text)
    try:
        return _trajectory(head, rows, constraint)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"this trajectory is damaged ({error!r}); write it again with to_jsonl.") from None


def _trajectory(head: dict[str, Any], rows: list[dict[str, Any]], constraint: Constraint | None) -> Trajectory:
    if len(rows) != head["rows"] or head["kinds"] != _KINDS:
        raise ConfigError(
            f"this trajectory has {len(rows)} rows of {head['rows']} and kinds {head['kinds']}, where this version "
            f"knows {_KINDS}: it was cut, or another version wrote it."
        )
    if head["is_constrained"] and constraint is None:
        raise ConfigError(
            "this trajectory was drawn under a grammar, whose law its log-probabilities are of. Give the constraint "
            "of its pages (samplers.grammar.constraint_of)."
        )
    paths = [row["path_log_probs"] for row in rows]
    has_path = bool(paths) and paths[0] is not None
    return Trajectory(
        events=_events(rows, head["length"]),
        time=None if head["time"] is None else torch.tensor(head["time"], dtype=torch.float32),
        path_log_probs=torch.tensor(paths, dtype=torch.float32) if has_path else None,
        slot_joined=None if head["slot_size"] is None else torch.tensor([row["slot_joined"] for row in rows]).int(),
        constraint=constraint,
        **{name: head[name] for name in _SHARED},
    )


def _row(trajectory: Trajectory, row: int) -> dict[str, Any]:
    events, path = trajectory.events, trajectory.path_log_probs
    own = slice(int(events.start[row]), int(events.start[row + 1]))
    initial = None if events.initial is None else events.initial[row].tolist()
    is_uniform = initial is not None and len(set(initial)) == 1
    return {
        "end": int(events.end[row]),
        "initial": initial[0] if is_uniform and initial is not None else initial,
        **{name: _plain(getattr(events, name)[own]) for name in _TYPES},
        "path_log_probs": None if path is None else _plain(path[row]),
        "slot_joined": None if trajectory.slot_joined is None else trajectory.slot_joined[row].tolist(),
    }


def _plain(values: Tensor) -> list[Any]:
    """Numbers; nine digits say which float32 one is."""
    return [float(f"{value:.9g}") for value in values.tolist()] if values.is_floating_point() else values.tolist()


def _parsed(text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        head, *rows = [json.loads(line) for line in text.splitlines()]
        is_ours = head["format"] == _FORMAT
    except (ValueError, KeyError, TypeError):
        is_ours, head, rows = False, {}, []
    if not is_ours:
        raise ConfigError(f"this is no trajectory; expected lines that to_jsonl wrote, got {text[:60]!r}.")
    return head, rows


def _events(rows: Sequence[dict[str, Any]], length: int) -> Events:
    count = torch.tensor([len(row["step"]) for row in rows], dtype=torch.long)
    columns = {
        name: torch.tensor([value for row in rows for value in row[name]], dtype=dtype)
        for name, dtype in _TYPES.items()
    }
    first = [[row["initial"]] * length if isinstance(row["initial"], int) else row["initial"] for row in rows]
    has_initial = bool(first) and first[0] is not None
    return sort_events(
        row=torch.arange(len(rows)).repeat_interleave(count),
        end=torch.tensor([row["end"] for row in rows]),
        initial=torch.tensor(first) if has_initial else None,
        length=length,
        **columns,
    )
