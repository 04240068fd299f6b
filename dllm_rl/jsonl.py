"""Append-only JSON lines that survive a kill: a last line that was torn is dropped and owed again."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dllm_rl.files import replace_file

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
    with replace_file(path) as temporary:
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), encoding="utf-8")


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: (None if isinstance(value, float) and not math.isfinite(value) else value) for key, value in row.items()
    }
