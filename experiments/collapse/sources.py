"""Metrics of runs from files: our run folders and `metrics.jsonl`, `trainer_state.json` of TRL or transformers, verl.

verl prints `step:12 - actor/entropy:0.41 - ...` a line; its file logger writes `{"step": 12, "data": {...}}` a line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm_rl.errors import ConfigError
from dllm_rl.jsonl import METRICS_FILE, read_rows

_PRINTED_STEP = re.compile(r"\bstep:(\d+)\s+-\s+(.*)")
_NUMBER = r"-?(?:\d+\.?\d*(?:e[+-]?\d+)?|nan|inf)"
_PRINTED_METRIC = re.compile(rf"([\w./@-]+):(?:(?:np|numpy)\.\w+\(|tensor\()?({_NUMBER})")
_FILES = (METRICS_FILE, "trainer_state.json")
# A colour code of a terminal, which logs of Ray workers carry.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRun:
    """Metrics of one run. group: runs that differ in their seed alone share it; seed: what tells them apart."""

    group: str
    seed: str
    path: Path
    metrics: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """Name for people."""
        return f"{self.group} {self.seed}".strip()


def find_runs(path: Path) -> list[LoggedRun]:
    """All runs under a path: one for a file or a seed's folder, one a seed for a cell, one a cell and seed for a grid.

    Raises ConfigError where nothing there can be read.
    """
    if not path.is_dir():
        return [LoggedRun(group=path.name, seed="", path=path, metrics=read_metrics(path))]
    found = list(_grid_runs(path) if _is_grid(path) else _folder_runs(path))
    if not found:
        if (path / "config.json").is_file() and not _is_grid(path):
            raise ConfigError(
                f"'{path / 'config.json'}' lists no cells, so '{path}' is no run folder of `dllm-rl grid`, nor "
                f"does it hold {' or '.join(_FILES)}, or a checkpoint-*/trainer_state.json of TRL or transformers."
            )
        raise ConfigError(
            f"'{path}' holds no metrics: neither {' nor '.join(_FILES)}, nor seeds or cells that began. "
            "Give a run folder, a cell, a seed, or a metrics file."
        )
    return found


def _is_grid(root: Path) -> bool:
    """Whether a folder is a run folder of ours; a model that was saved has a config.json, too."""
    path = root / "config.json"
    config = _json(path) if path.is_file() else None
    return isinstance(config, dict) and isinstance(config.get("cells"), list)


def _grid_runs(root: Path) -> Iterator[LoggedRun]:
    for cell in _json(root / "config.json")["cells"]:
        yield from _seeds(root / cell["folder"], cell["id"])


def _folder_runs(folder: Path) -> Iterator[LoggedRun]:
    if any((folder / name).is_file() for name in _FILES):
        yield LoggedRun(group=folder.name, seed="", path=folder, metrics=read_metrics(folder))
        return
    yield from _seeds(folder, folder.name)
    # TRL and transformers keep the state in each checkpoint; the newest holds the whole history.
    states = sorted(folder.glob("checkpoint-*/trainer_state.json"), key=lambda state: _number(state.parent.name))
    if states:
        yield LoggedRun(group=folder.name, seed="", path=states[-1], metrics=read_metrics(states[-1]))


def _seeds(cell: Path, group: str) -> Iterator[LoggedRun]:
    for folder in sorted(cell.glob("seed*"), key=lambda folder: _number(folder.name)):
        if (folder / METRICS_FILE).is_file():
            seed = folder.name.replace("seed", "seed ", 1)
            yield LoggedRun(group=group, seed=seed, path=folder, metrics=read_metrics(folder))


def _number(name: str) -> int:
    digits = re.search(r"\d+", name)
    return int(digits[0]) if digits else 0


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read one run's metrics, one row a step. A folder stands for the metrics file or trainer state inside it."""
    if path.is_dir():
        found = next((path / name for name in _FILES if (path / name).is_file()), None)
        if found is None:
            raise ConfigError(f"'{path}' holds none of {', '.join(_FILES)}. Give a run's folder or its metrics file.")
        path = found
    if not path.is_file():
        raise ConfigError(
            f"no file or folder '{path}'. Give a run's folder, metrics.jsonl, trainer_state.json or a log."
        )
    readers = {".jsonl": _json_lines, ".json": _trainer_state}
    return [_numbers(row) for row in readers.get(path.suffix, _printed)(path)]


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    """Only what can be a metric; None stands for a number that was not finite, and is no step."""
    kept = {name: value for name, value in row.items() if value is None or isinstance(value, int | float)}
    return {name: value for name, value in kept.items() if name != "step" or value is not None}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{path}' is no valid JSON ({error}); was its writer stopped half way?") from None


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows = read_rows(path)
    if not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"'{path}' has lines that are no JSON objects: it is no metrics file.")
    if not rows and path.stat().st_size:
        raise ConfigError(f"'{path}' has no whole line of JSON: it is no metrics file.")
    return [{**row["data"], "step": row.get("step")} if isinstance(row.get("data"), dict) else row for row in rows]


def _trainer_state(path: Path) -> list[dict[str, Any]]:
    state = _json(path)
    if not isinstance(state, dict) or not isinstance(state.get("log_history"), list):
        raise ConfigError(f"'{path}' has no log_history: it is no trainer_state.json of TRL or transformers.")
    # The last entry sums up the whole run; evaluations have entries of their own.
    return [
        row for row in state["log_history"] if "train_runtime" not in row and not any(k[:5] == "eval_" for k in row)
    ]


def _printed(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text(errors="replace").splitlines():
        match = _PRINTED_STEP.search(_COLOUR.sub("", line))
        if match is not None:
            metrics = {name: float(value) for name, value in _PRINTED_METRIC.findall(match[2])}
            rows.append({**metrics, "step": int(match[1])})
    if not rows:
        raise ConfigError(f"'{path}' has no line of the form 'step:1 - name:value - ...': not a log that verl prints.")
    return rows
