"""Files and folders that are whole or absent, whatever is killed: JSON files, and the hash of a file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
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
    """Hand out an empty folder that becomes `folder` on success; until then `<folder>.old` stays."""
    temporary, previous = (folder.with_name(folder.name + end) for end in (".part", ".old"))
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    shutil.rmtree(previous, ignore_errors=True)
    if folder.exists():
        folder.rename(previous)
    temporary.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
