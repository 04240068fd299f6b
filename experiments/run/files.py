"""JSON files of a run folder, whole or absent, and errors that name the file or folder at fault."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dllm_rl.errors import ConfigError
from dllm_rl.files import replace_file


def make_folder(root: Path) -> None:
    """Make the folder of a run; raises ConfigError where nothing can be written there."""
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"'{root}' cannot be the folder of a run ({error.strerror}). Give another with --out."
        ) from None
    if not os.access(root, os.W_OK):
        raise ConfigError(f"nothing can be written to '{root}'. Give another folder with --out.")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file of a run folder; raises ConfigError where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"'{path}' is not valid JSON ({error}): the disk damaged it, or it was edited. Put it back, or delete it "
            "and give the command that wrote it again."
        ) from None
