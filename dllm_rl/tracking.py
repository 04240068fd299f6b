"""Append-only JSONL files that survive a kill: a torn last line is dropped and owed again; accelerate's trackers."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dllm_rl.errors import ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator

Tracker = Literal["tensorboard", "trackio", "wandb"]

# Of a training run, in its folder.
METRICS_FILE, ROLLOUTS_FILE, COMMITS_FILE = "metrics.jsonl", "rollouts.jsonl", "commit_order.jsonl"


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append one JSON object a line and flush to the operating system. Non-finite numbers are written as null."""
    text = "".join(json.dumps(_plain(row), ensure_ascii=False) + "\n" for row in rows)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All complete rows; a file that is missing is empty, and a last line that was torn by a kill is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def truncate_rows(path: Path, *, before_step: int) -> None:
    """Keep only the rows of steps before this one, so that a resumed run writes each step exactly once."""
    if not path.is_file():
        return
    kept = [row for row in read_rows(path) if row["step"] < before_step]
    temporary = path.with_name(path.name + ".part")
    temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), encoding="utf-8")
    temporary.replace(path)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: (None if isinstance(value, float) and not math.isfinite(value) else value) for key, value in row.items()
    }


def require_tracker(name: Tracker | None) -> None:
    """Raise ConfigError where a tracker's package is missing, which accelerate would pass over in silence."""
    if name is not None and importlib.util.find_spec(name) is None:
        raise ConfigError(f"train.tracker={name} needs the package {name}: pip install 'dllm-rl[{name}]'")


@contextmanager
def tracked(accelerator: Accelerator, run_dir: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Open the accelerator's tracker, if it has one, for the time of a run, and finish it whatever happens."""
    if accelerator.log_with:
        known = {key: value for key, value in settings.items() if value is not None}
        run = {"name": f"{run_dir.parent.name}/{run_dir.name}"}
        accelerator.init_trackers("dllm_rl", config=known, init_kwargs={"wandb": run, "trackio": run})
    try:
        yield
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()


def trackable(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row that a tracker can draw."""
    return {key: value for key, value in row.items() if isinstance(value, int | float) and math.isfinite(value)}
