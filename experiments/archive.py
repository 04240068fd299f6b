"""The file that carries a run from one machine to another: a tar.xz whose bytes depend on its contents alone.

It holds files of a run folder under their names there, and first a manifest with the hash of each. What is read is
checked before anything is written: only names that a run folder has, only plain files, only what the manifest says.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm_rl.errors import ConfigError
from experiments.run_folder import replace_file

MANIFEST = "dllm_rl_run.json"
FORMAT = 1
# Unpacked: a study with every rollout stays far below; a file made to fill memory does not.
MAX_BYTES = 2**30
_PART = r"(?!\.)[^/\\:\x00-\x1f]+"
_UNIT = rf"(?:warmstart/{_PART}|cells/{_PART}/seed-?\d+)"
_UNIT_FILE = (
    r"status\.json|cell\.json|alarms\.json|evaluation-[0-9a-f]+\.parquet|metrics\.jsonl|commit_order\.jsonl"
    r"|rollouts\.jsonl|waypoints/step\d+\.json|waypoints/step\d+-\d+\.html"
)
_NAME = re.compile(rf"config\.json|self_check\.json|{_UNIT}/(?:{_UNIT_FILE})")
_FOLDER = re.compile(_UNIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """What an archive holds. files: contents by their name in the run folder."""

    preset: str
    grid: str
    files: Mapping[str, bytes]

    def json(self, name: str) -> Any:
        """One of its files, read as JSON."""
        return json.loads(self.files[name])


def is_unit_folder(name: str) -> bool:
    """Whether this is where a unit lies in a run folder, so that joining it to one leads nowhere else."""
    return _FOLDER.fullmatch(name) is not None


def write_archive(path: Path, archive: Archive) -> int:
    """Write an archive, whole or not at all; returns its size in bytes. Equal contents give equal bytes."""
    foreign = [name for name in archive.files if _NAME.fullmatch(name) is None]
    if foreign:
        raise ConfigError(
            f"'{foreign[0]}' is no file of a run that an archive can hold: rename its cell or its policy."
        )
    manifest = {
        "format": FORMAT,
        "preset": archive.preset,
        "grid": archive.grid,
        "files": {name: hash_of_bytes(content) for name, content in sorted(archive.files.items())},
    }
    # Files of one kind side by side: they resemble one another, so they compress together.
    names = sorted(archive.files, key=lambda name: (Path(name).name.split("-")[0], name))
    parts = [(MANIFEST, json.dumps(manifest, indent=1).encode()), *((name, archive.files[name]) for name in names)]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in parts:
            # Its owner, mode and time are tarfile's constants.
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    packed = lzma.compress(buffer.getvalue(), preset=6 | lzma.PRESET_EXTREME)
    try:
        with replace_file(path) as temporary:
            temporary.write_bytes(packed)
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be written ({error.strerror}). Give another file with --out.") from None
    return len(packed)


def read_archive(path: Path) -> Archive:
    """Read an archive and check it. Raises ConfigError where it is none, is damaged, or would write elsewhere."""
    files = _members(path, _content(path))
    try:
        manifest = json.loads(files.pop(MANIFEST))
        known, preset, grid = dict(manifest["files"]), str(manifest["preset"]), str(manifest["grid"])
        is_known = manifest["format"] == FORMAT
    except (KeyError, ValueError, TypeError):
        raise _foreign(path) from None
    if not is_known:
        raise ConfigError(f"'{path}' has format {manifest['format']}, and this version reads {FORMAT}: update dllm_rl.")
    wrong = sorted(known.keys() ^ files.keys()) or [
        name for name, content in files.items() if hash_of_bytes(content) != known[name]
    ]
    if wrong:
        raise _damaged(path, f"'{wrong[0]}' is not what was packed")
    if "config.json" not in files or re.fullmatch(_PART, preset) is None:
        raise _foreign(path)
    return Archive(preset=preset, grid=grid, files=files)


def _content(path: Path) -> bytes:
    try:
        with lzma.open(path) as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"there is no file '{path}'. `dllm-rl pack RUN` writes one.") from None
    except IsADirectoryError:
        raise ConfigError(f"'{path}' is a folder; give the file that `dllm-rl pack` wrote.") from None
    except (lzma.LZMAError, EOFError) as error:
        if not _is_xz(path):
            raise _foreign(path) from None
        raise _damaged(path, str(error)) from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"'{path}' unpacks to over {MAX_BYTES:,} bytes, which no run needs. Nothing was written.")
    return content


def _is_xz(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6) == b"\xfd7zXZ\x00"


def _members(path: Path, content: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for entry in tar:
                if not entry.isfile() or entry.name in found:
                    raise _unsafe(path, entry.name)
                if entry.name != MANIFEST and _NAME.fullmatch(entry.name) is None:
                    raise _foreign(path) if not found else _unsafe(path, entry.name)
                member = tar.extractfile(entry)
                assert member is not None
                found[entry.name] = member.read()
    except (tarfile.TarError, EOFError) as error:
        raise _foreign(path) if not found else _damaged(path, str(error)) from None
    return found


def hash_of_bytes(content: bytes) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()


def _foreign(path: Path) -> ConfigError:
    return ConfigError(f"'{path}' is no archive of `dllm-rl pack`: it has no manifest of a run. Nothing was written.")


def _damaged(path: Path, why: str) -> ConfigError:
    return ConfigError(f"'{path}' is damaged ({why}): copy it again, or pack it again. Nothing was written.")


def _unsafe(path: Path, name: str) -> ConfigError:
    return ConfigError(
        f"'{path}' holds '{name}', which is no plain file of a run folder, or is there twice: `dllm-rl pack` did not "
        "write this. Nothing was written."
    )
