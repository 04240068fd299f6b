"""Metrics of a run from a file: our `metrics.jsonl`, a `trainer_state.json` of TRL or transformers, a verl log."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from dllm_rl.errors import ConfigError
from dllm_rl.tracking import read_rows

# verl's console logger: "step:12 - actor/entropy:0.41 - critic/score/mean:0.2"
_PRINTED_STEP = re.compile(r"\bstep:(\d+)\s+-\s+(.*)")
_PRINTED_METRIC = re.compile(r"([\w./@-]+):(?:np\.\w+\()?(-?(?:\d+\.?\d*(?:e[+-]?\d+)?|nan|inf))")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read one run's metrics, one row a step. A folder stands for the metrics file or trainer state inside it."""
    if path.is_dir():
        names = ("metrics.jsonl", "trainer_state.json")
        found = next((path / name for name in names if (path / name).is_file()), None)
        if found is None:
            raise ConfigError(f"'{path}' holds none of {', '.join(names)}. Give a run's folder or its metrics file.")
        path = found
    if not path.is_file():
        raise ConfigError(f"no file '{path}'. Give a run's folder, metrics.jsonl, trainer_state.json or a log.")
    if path.suffix == ".jsonl":
        return read_rows(path)
    if path.suffix == ".json":
        return _trainer_state(path)
    return _printed(path)


def _trainer_state(path: Path) -> list[dict[str, Any]]:
    state = json.loads(path.read_text())
    if not isinstance(state, dict) or "log_history" not in state:
        raise ConfigError(f"'{path}' has no log_history: it is no trainer_state.json of TRL or transformers.")
    # The last entry sums up the whole run; evaluations have entries of their own.
    return [
        row for row in state["log_history"] if "train_runtime" not in row and not any(k[:5] == "eval_" for k in row)
    ]


def _printed(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text(errors="replace").splitlines():
        match = _PRINTED_STEP.search(line)
        if match is not None:
            metrics = {name: float(value) for name, value in _PRINTED_METRIC.findall(match[2])}
            rows.append({**metrics, "step": int(match[1])})
    if not rows:
        raise ConfigError(f"'{path}' has no line of the form 'step:1 - name:value - ...': not a log that verl prints.")
    return rows
