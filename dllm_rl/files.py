"""Files and folders that are whole or absent, whatever is killed; JSON; JSON lines that survive a kill; hashes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dllm_rl.errors import ConfigError


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Hand out a temporary path that becomes `path` on success; a kill in between leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two machines on a shared folder may have processes of the same number.
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Hand out an empty folder that becomes `folder` on success; all that was in `folder` is removed.

    A kill between the two renames leaves the old one as `previous_folder(folder)`.
    """
    temporary, previous = folder.with_name(f".{folder.name}.part"), previous_folder(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        shutil.rmtree(previous, ignore_errors=True)
        if folder.exists():
            folder.rename(previous)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(previous, ignore_errors=True)


def previous_folder(folder: Path) -> Path:
    """Where `replace_folder` keeps the old folder for a moment; hidden, so that it is never one of the user's."""
    return folder.with_name(f".{folder.name}.old")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: Path) -> str:
    """Text of a file that a user names. Raises ConfigError where it cannot be read as text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{path}' cannot be read as text in UTF-8: {error}. Name another file.") from None


def lines_of(text: str) -> list[str]:
    """Lines of JSON, which may hold what else ends a line, such as U+2028."""
    return text.removesuffix("\n").split("\n")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file; raises ConfigError where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"'{path}' is not valid JSON ({error}): the disk damaged it, or it was edited. Put it back, or delete it "
            "and give the command that wrote it again."
        ) from None


# Files of a training run, in its folder.
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
