"""The results table: one row per evaluated rollout, in a fixed schema and a fixed order, written atomically."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from dllm_rl.errors import DllmRlError
from dllm_rl.files import replace_file
from dllm_rl.records.tasks import Fault

SCHEMA = pa.schema(
    [
        ("cell", pa.string()),
        ("policy", pa.string()),
        ("objective", pa.string()),
        ("role", pa.string()),
        ("seed", pa.int64()),
        ("stage", pa.string()),
        ("split", pa.string()),
        ("task_id", pa.string()),
        ("mode", pa.string()),
        ("sample", pa.int64()),
        ("reward", pa.float64()),
        ("success", pa.bool_()),
        ("submitted", pa.bool_()),
        ("field_accuracy", pa.float64()),
        ("progress", pa.float64()),
        ("claim", pa.float64()),
        ("components", pa.string()),
        ("near_miss", pa.bool_()),
        ("parsed", pa.bool_()),
        ("fault", pa.string()),
        ("plan", pa.string()),
        ("notes", pa.string()),
        ("num_tokens", pa.int64()),
        ("num_turns", pa.int64()),
        ("ending", pa.string()),
        ("seconds", pa.float64()),
    ]
)
TIMING_COLUMNS = ("seconds",)
# Over this share of lost rollouts an evaluation says too little about its policy.
MAX_LOST_SHARE = 0.05
_GRID = b"grid_digest"
_SETTINGS = b"settings"
_ORDER = ("stage", "cell", "seed", "split", "task_id", "mode", "sample")


class RolloutsLostError(DllmRlError):
    """Too many rollouts of an evaluation were lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitKey:
    """Which unit rows belong to: one seed of a cell, or the warm start of a policy (cell and seed are None)."""

    policy: str
    cell: str | None = None
    seed: int | None = None

    @property
    def is_warm_start(self) -> bool:
        """Whether this is the evaluation of a policy before any training."""
        return self.cell is None

    @property
    def name(self) -> str:
        """Name for people."""
        return f"warm start {self.policy}" if self.is_warm_start else f"{self.cell} seed {self.seed}"

    @property
    def label(self) -> str:
        """What the column `cell` says."""
        return f"warmstart:{self.policy}" if self.cell is None else self.cell

    @property
    def columns(self) -> dict[str, Any]:
        """The columns that tell its rows from others; the table has -1 for the seed of a warm start."""
        seed, stage = (-1, "warmstart") if self.seed is None else (self.seed, "final")
        return {"cell": self.label, "policy": self.policy, "seed": seed, "stage": stage}


def is_lost(fault: str) -> bool:
    """Whether a rollout with this fault was lost, to the environment or for want of a judge's answer; never a zero."""
    return Fault(fault).is_loss


def refuse_lost(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise where too large a share of an evaluation was lost, which then is owed again."""
    num_lost = sum(is_lost(row["fault"]) for row in rows)
    num_unjudged = sum(row["fault"] == Fault.JUDGE.value for row in rows)
    if num_lost > MAX_LOST_SHARE * len(rows):
        said = Counter(row.get("notes") or "no reason given" for row in rows if is_lost(row["fault"]))
        raise RolloutsLostError(
            f"{num_lost} of {len(rows)} evaluated rollouts were lost{_unjudged(num_unjudged)} "
            f"(limit {MAX_LOST_SHARE:.0%}). "
            f"Most often: {said.most_common(1)[0][0]}. "
            "What was trained is kept: the same command evaluates again. `dllm-rl doctor` looks for the cause."
        )


def _unjudged(count: int) -> str:
    """Who lost them."""
    return f", {count} of them since the judge gave no answer" if count else " to the environment"


def write_rows(
    path: Path, rows: Iterable[dict[str, Any]], *, settings: Mapping[str, Any] | None = None, **labels: Any
) -> None:
    """Write rollouts as parquet.

    Args:
        settings: Environment and reward that they ran under, for a table that lies outside of a run (`settings_of`).
        labels: Cell, policy and so on, which are added to every row.
    """
    table = pa.Table.from_pylist([{**row, **labels} for row in rows], schema=SCHEMA)
    _write(path, table if settings is None else table.replace_schema_metadata({_SETTINGS: json.dumps(settings)}))


def settings_of(path: Path) -> dict[str, Any]:
    """The settings that a table was written with; empty where there are none."""
    return json.loads((pq.read_schema(path).metadata or {}).get(_SETTINGS, b"{}"))


def merge(path: Path, parts: Iterable[Path], *, grid: str = "") -> int:
    """Write all parts as one sorted table, whatever their order, and return its number of rows.

    A table that says the same already stays untouched, so that its time says when the results last changed.

    Args:
        grid: Digest of the grid that they belong to, which is kept with them (`grid_of`).
    """
    tables = [pq.read_table(part, schema=SCHEMA) for part in parts]
    table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    _write(path, table.replace_schema_metadata({_GRID: grid.encode()}))
    return table.num_rows


def grid_of(path: Path) -> str:
    """Digest of the grid whose rows a merged table holds; "" where it says nothing."""
    return (pq.read_schema(path).metadata or {}).get(_GRID, b"").decode()


def _write(path: Path, table: pa.Table) -> None:
    ordered = table.sort_by([(name, "ascending") for name in _ORDER])
    buffer = io.BytesIO()
    pq.write_table(ordered, buffer)
    if path.is_file() and path.read_bytes() == buffer.getvalue():
        return
    with replace_file(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def is_equal(first: Path | BinaryIO, second: Path | BinaryIO) -> bool:
    """Whether two result tables hold the same rollouts, but for timing and for columns that one is too old to have."""
    one, two = (pq.read_table(path) for path in (first, second))
    compared = [
        name
        for name in SCHEMA.names
        if name not in TIMING_COLUMNS and name in one.column_names and name in two.column_names
    ]
    return bool(compared) and one.select(compared).equals(two.select(compared))
