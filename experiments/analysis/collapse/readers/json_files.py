"""Metrics in JSON: our metrics.jsonl, trainer states, histories of wandb, files of ms-swift, LLaMA-Factory and verl."""

from __future__ import annotations

import json
from typing import Any

from dllm_rl.errors import ConfigError

# What json raises: torn text, numbers of thousands of digits, brackets without end.
_BROKEN = (ValueError, RecursionError)


def json_lines(text: str) -> list[dict[str, Any]] | None:
    """One JSON object a line. A last line that was torn by a kill is left out; verl puts the numbers under `data`."""
    lines = [line for line in text.splitlines() if line.strip()]
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
    return [{**row["data"], "step": row.get("step")} if isinstance(row.get("data"), dict) else row for row in rows]


def trainer_state(text: str) -> list[dict[str, Any]] | None:
    """`log_history` of a trainer_state.json, evaluations included; without its last entry, which sums up the run."""
    state = _document(text, "{")
    if not isinstance(state, dict) or not isinstance(state.get("log_history"), list):
        return None
    return [row for row in state["log_history"] if isinstance(row, dict) and "train_runtime" not in row]


def json_array(text: str) -> list[dict[str, Any]] | None:
    """A JSON array of rows, as `DataFrame.to_json(orient="records")` writes a history of wandb."""
    rows = _document(text, "[")
    return rows if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows) else None


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
        raise ConfigError(f"'{name}' is no valid JSON ({error}); was its writer stopped half way?") from None
