"""The results table: one row per evaluated rollout, in a fixed schema and a fixed order, written atomically."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from dllm_rl.errors import DllmRlError
from experiments.run_folder import hash_of, read_status, replace_file, rows_file

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
        ("near_miss", pa.bool_()),
        ("parsed", pa.bool_()),
        ("fault", pa.string()),
        ("plan", pa.string()),
        ("notes", pa.string()),
        ("num_tokens", pa.int64()),
        ("seconds", pa.float64()),
    ]
)
TIMING_COLUMNS = ("seconds",)
_GRID = b"grid_digest"
_ORDER = ("stage", "cell", "seed", "split", "task_id", "mode", "sample")


class DamagedResultError(DllmRlError):
    """A finished result that is not what was written."""


def write_rows(path: Path, rows: Iterable[dict[str, Any]], **labels: Any) -> None:
    """Write rollouts as parquet; labels (cell, policy, ...) are added to every row."""
    _write(path, pa.Table.from_pylist([{**row, **labels} for row in rows], schema=SCHEMA))


def merge(path: Path, parts: Iterable[Path], *, grid: str = "") -> int:
    """Write all parts as one sorted table, whatever their order, and return its number of rows.

    A table that says the same already stays untouched, so that its time says when the results last changed.
    grid: digest of the grid that they belong to, which is kept with them (`grid_of`).
    """
    tables = [pq.read_table(part, schema=SCHEMA) for part in parts]
    table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    _write(path, table.replace_schema_metadata({_GRID: grid.encode()}))
    return table.num_rows


def gather(root: Path, find: Callable[[], Iterable[tuple[Path, str]]], *, grid: str) -> int:
    """Write results.parquet of a run from its finished evaluations; returns the number of rows.

    find: the folder of each finished unit and the digest of its evaluation. It is asked under a lock: of two processes
    that end at once, the one that writes last has seen what the other finished. Raises DamagedResultError where a
    finished result is not what was written.
    """
    with FileLock(root / ".results.lock"):
        found = list(find())
        for folder, digest in found:
            refuse_damaged(folder, digest)
        return merge(root / "results.parquet", [rows_file(folder, digest) for folder, digest in found], grid=grid)


def refuse_damaged(folder: Path, digest: str) -> None:
    """Raise DamagedResultError where a unit's finished evaluation is not what was written."""
    path = rows_file(folder, digest)
    if hash_of(path) != read_status(folder).evaluations[digest]:
        raise DamagedResultError(
            f"'{path}' does not match its recorded hash: the disk damaged it, or it was edited. "
            "Delete it, and `dllm-rl grid` evaluates this cell again."
        )


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
    """Whether two result tables hold the same rollouts, timing aside."""
    one, two = (pq.read_table(path, schema=SCHEMA).drop_columns(list(TIMING_COLUMNS)) for path in (first, second))
    return one.equals(two)
