"""`dllm-rl pack`: the finished units of a run as one file, as `archive` reads it.

Its bytes depend on what is packed alone. Training rollouts and films are left out where they are large.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dllm_rl.errors import ConfigError
from dllm_rl.files import replace_file
from experiments.run import archive
from experiments.run.archive import FORMAT, MANIFEST, kept_of, rollouts_of, snapshots_of
from experiments.run.folder import (
    CONFIG_FILE,
    SELF_CHECK_FILE,
    STATUS_FILE,
    RunFolder,
    UnitFolder,
    nothing_finished,
    refuse_damaged,
    refuse_unwritable,
)

ROLLOUTS = "training rollouts"
# Training rollouts are for `replay` alone: 50 steps of 64 are about a megabyte, which packs to 20 kilobytes.
MAX_ROLLOUTS_BYTES = 256 * 1024
# Films of one unit; the usual thirteen are one megabyte, which packs to some ten kilobytes.
MAX_FILMS_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """What `pack` wrote.

    Attributes:
        left_out: Bytes of what was too large, by what it is.
    """

    path: Path
    num_units: int
    num_planned: int
    num_bytes: int
    left_out: dict[str, int]


def pack_run(run: RunFolder, out: Path | None = None, *, with_rollouts: bool = False) -> Packed:
    """Pack the finished units of a run folder.

    Args:
        out: Default <preset>-<digest>.tar.xz, here.
        with_rollouts: Training rollouts whatever their size, as long as the whole can be unpacked.

    Raises ConfigError where nothing is finished, an evaluation is not what was written, or the units are too large
    without any training rollouts.
    """
    config = run.config
    path = out or Path(f"{config.preset}-{config.digest[:8]}.tar.xz")
    refuse_unwritable(path, example="run.tar.xz")
    units = run.finished()
    if not units:
        raise nothing_finished(run.root)
    refuse_damaged(units)
    files = {name: run.root / name for name in (CONFIG_FILE, SELF_CHECK_FILE) if (run.root / name).is_file()}
    contents = {name: place.read_bytes() for name, place in files.items()}
    left_out: dict[str, int] = {}
    for unit in units:
        contents |= _contents(run.root, unit, left_out)
    _add_rollouts(run.root, units, contents, archive.MAX_BYTES if with_rollouts else MAX_ROLLOUTS_BYTES, left_out)
    packed = _tar_of(config.preset, config.digest, contents)
    try:
        with replace_file(path) as temporary:
            temporary.write_bytes(packed)
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be written ({error.strerror}). Give another file with --out.") from None
    num_planned = len(run.units())
    return Packed(path=path, num_units=len(units), num_planned=num_planned, num_bytes=len(packed), left_out=left_out)


def _contents(root: Path, unit: UnitFolder, left_out: dict[str, int]) -> dict[str, bytes]:
    """Files of one unit without its rollouts, by their names from the run; adds to `left_out` what is too large."""
    status = unit.status
    # The status of a run that evaluated just this, and whose process has ended.
    status = replace(status, pid=0, evaluations={status.digest: status.evaluations[status.digest]})
    place = unit.path.relative_to(root).as_posix()
    found = {f"{place}/{STATUS_FILE}": (json.dumps(asdict(status), indent=2) + "\n").encode()}
    chosen, films = kept_of(unit), snapshots_of(unit)
    size = sum(path.stat().st_size for path in films)
    if size > MAX_FILMS_BYTES:
        left_out["snapshots"] = left_out.get("snapshots", 0) + size
    else:
        chosen += films
    return found | {path.relative_to(root).as_posix(): path.read_bytes() for path in chosen}


def _add_rollouts(
    root: Path, units: Sequence[UnitFolder], contents: dict[str, bytes], limit: int, left_out: dict[str, int]
) -> None:
    """Add training rollouts up to a size each, as far as all files together can be unpacked again.

    Raises ConfigError where they cannot even without rollouts.
    """
    room = archive.MAX_BYTES - sum(_size_in_manifest(name) + len(content) for name, content in contents.items())
    if room < 0:
        raise ConfigError(
            f"the {len(units)} finished units of '{root}' have {archive.MAX_BYTES - room:,} bytes, and an archive that "
            f"`dllm-rl unpack` reads may have {archive.MAX_BYTES:,}. Copy the folder instead."
        )
    for path in (path for unit in units for path in rollouts_of(unit)):
        name, size = path.relative_to(root).as_posix(), path.stat().st_size
        if size > limit or size + _size_in_manifest(name) > room:
            left_out[ROLLOUTS] = left_out.get(ROLLOUTS, 0) + size
        else:
            contents[name] = path.read_bytes()
            room -= size + _size_in_manifest(name)


def _size_in_manifest(name: str) -> int:
    """Bytes that a file's line in the manifest takes at most: its name, its hash, and what stands around them."""
    return len(json.dumps(name)) + 100


def _tar_of(preset: str, grid: str, contents: dict[str, bytes]) -> bytes:
    """The archive's bytes. Files of one kind lie side by side: they resemble one another, so they compress together."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())}
    manifest = {"format": FORMAT, "preset": preset, "grid": grid, "files": hashes}
    names = sorted(contents, key=lambda name: (Path(name).name.split("-")[0], name))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        parts = [(MANIFEST, json.dumps(manifest, indent=1).encode()), *((name, contents[name]) for name in names)]
        for name, content in parts:
            # Its owner, mode and time are tarfile's constants.
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return lzma.compress(buffer.getvalue(), preset=6 | lzma.PRESET_EXTREME)


def pack(run: Path, out: Path | None, *, with_rollouts: bool) -> int:
    """Pack a run and say what is in the file and what is not."""
    done = pack_run(RunFolder.find(run), out, with_rollouts=with_rollouts)
    each = done.num_bytes / done.num_units / 1000
    print(f"{done.num_units} of {done.num_planned} units are finished; {each:.0f} kB each: {done.path}")
    for what, size in done.left_out.items():
        hint = " (--rollouts packs them)" if what == ROLLOUTS and not with_rollouts else ""
        print(f"left out, too large: {what}, {size / 1e6:.1f} MB{hint}")
    return 0
