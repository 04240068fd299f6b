"""`dllm-rl unpack`: lay the finished units of an archive into a run folder, where the report and the grid go on.

Which of them count is decided as ever: a unit is done where its evaluation carries the digest that the settings, the
tasks, the checkpoint and the code of this machine have; another is owed.
"""

from __future__ import annotations

import io
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from dllm_rl.errors import ConfigError
from dllm_rl.jsonl import COMMITS_FILE, METRICS_FILE, ROLLOUTS_FILE
from experiments.archive import Archive, hash_of_bytes, is_unit_folder, read_archive
from experiments.collapse.online import ALARMS_FILE
from experiments.pack import finished_units
from experiments.results import gather, is_equal, refuse_damaged
from experiments.run_folder import (
    WAYPOINTS_FOLDER,
    Status,
    claim,
    hash_of,
    is_claimed,
    make_folder,
    read_json,
    read_status,
    replace_file,
    rows_file,
    write_json,
    write_status,
)

_CHECKED = "self_check.json"
# As `dllm_rl.checkpoint` names them, which would load PyTorch: the last one, and what a kill leaves of two.
_CHECKPOINTS = "checkpoint*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """What `unpack` did. num_new: units laid down; num_known: those that were there.

    num_judged: finished units of the folder's configuration now. is_other: whether that is another configuration than
    the archive's; it stays.
    """

    root: Path
    num_new: int
    num_known: int
    num_judged: int
    is_other: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One unit of an archive. files: by their names in the unit's folder, status.json aside."""

    folder: str
    digest: str
    status: Status
    files: dict[str, bytes]

    @property
    def rows(self) -> bytes:
        return self.files[rows_file(Path(), self.digest).name]


def unpack_run(path: Path, out: Path | None = None) -> Unpacked:
    """Lay an archive into a run folder. out: default runs/<preset>.

    Raises ConfigError, and writes nothing, where the archive is none or damaged, where an evaluation does not match the
    hash its unit recorded, where the folder is another preset's, or has a finished unit with other rollouts.
    """
    archive = read_archive(path)
    config, parts = _config(path, archive), _parts(path, archive)
    root = out or Path("runs") / archive.preset
    known = read_json(root / "config.json") if (root / "config.json").is_file() else None
    if known is not None and known["preset"] != config["preset"]:
        raise ConfigError(
            f"'{root}' is a run of '{known['preset']}' and '{path}' one of '{config['preset']}': give another --out."
        )
    for place, digest in _places(root, known) if known else ():
        refuse_damaged(place, digest)
    checked = _checked(root, archive)
    fresh = [part for part in parts if not _is_there(root, part)]
    # Looked at before any is claimed, which makes folders.
    for part in fresh:
        if is_claimed(root / part.folder):
            raise _taken(root / part.folder)
    make_folder(root)
    with ExitStack() as claims:
        for part in fresh:
            if not claims.enter_context(claim(root / part.folder)):
                raise _taken(root / part.folder)
        for part in fresh:
            _lay(root / part.folder, part)
    if checked:
        write_json(root / _CHECKED, checked)
    if known is None:
        with replace_file(root / "config.json") as temporary:
            temporary.write_bytes(archive.files["config.json"])
    judged = known or config
    return Unpacked(
        root=root,
        num_new=len(fresh),
        num_known=len(parts) - len(fresh),
        num_judged=_collect(root, judged),
        is_other=judged["digest"] != config["digest"],
    )


def _taken(place: Path) -> ConfigError:
    return ConfigError(f"a process works on '{place}' now. Stop it, or unpack to another --out.")


def _config(path: Path, archive: Archive) -> dict[str, Any]:
    """The archive's configuration, whose folders lie in a run folder and nowhere else."""
    try:
        config = archive.json("config.json")
        places = [f"{cell['folder']}/seed{seed}" for cell in config["cells"] for seed in config["seeds"]]
        is_inside = all(is_unit_folder(place) for place in [*config["warm_starts"].values(), *places])
        is_own = (config["preset"], config["digest"]) == (archive.preset, archive.grid)
    except (KeyError, ValueError, TypeError, AttributeError):
        raise ConfigError(f"'{path}' holds no configuration of a grid. Nothing was written.") from None
    if not is_own or not is_inside:
        raise ConfigError(f"'{path}' holds a configuration that is not its own. Nothing was written.")
    return config


def _parts(path: Path, archive: Archive) -> list[_Part]:
    """The archive's units, each with an evaluation that is what its status recorded."""
    parts = []
    for name in sorted(archive.files):
        if PurePosixPath(name).name != "status.json":
            continue
        folder = str(PurePosixPath(name).parent)
        try:
            status = Status(**archive.json(name))
            ((digest, recorded),) = status.evaluations.items()
            rows = archive.files[f"{folder}/{rows_file(Path(), digest).name}"]
        except (KeyError, ValueError, TypeError, AttributeError):
            raise ConfigError(f"'{path}' holds no finished evaluation of '{folder}'. Nothing was written.") from None
        if hash_of_bytes(rows) != recorded:
            raise ConfigError(
                f"'{path}': the rows of '{folder}' do not match their recorded hash. Nothing was written."
            )
        start = f"{folder}/"
        inside = {key.removeprefix(start): value for key, value in archive.files.items() if key.startswith(start)}
        del inside["status.json"]
        parts.append(_Part(folder=folder, digest=digest, status=status, files=inside))
    return parts


def _checked(root: Path, archive: Archive) -> dict[str, Any]:
    """Self-checks of the folder and of the archive; they decide which tasks are used, so they may not differ."""
    theirs = archive.json(_CHECKED) if _CHECKED in archive.files else {}
    ours = read_json(root / _CHECKED) if (root / _CHECKED).is_file() else {}
    for key in theirs.keys() & ours.keys():
        if theirs[key].keys() != ours[key].keys():
            raise ConfigError(
                f"the self-check of '{root}' left out {sorted(ours[key])} and the archive's {sorted(theirs[key])} of "
                "the same tasks, so their results do not compare. Give another --out."
            )
    return {**theirs, **ours}


def _is_there(root: Path, part: _Part) -> bool:
    """Whether the folder has this evaluation already; raises where it has one with other rollouts."""
    place = root / part.folder
    recorded, path = read_status(place).evaluations.get(part.digest), rows_file(place, part.digest)
    if recorded is None or not path.is_file():
        return False
    if hash_of(path) != recorded:
        raise ConfigError(
            f"'{path}' does not match its recorded hash: the disk damaged it. Delete it, and unpack again."
        )
    # Wall times differ wherever the same unit was run twice.
    if not is_equal(path, io.BytesIO(part.rows)):
        raise ConfigError(
            f"'{place}' is finished with other rollouts than the archive's, under equal settings and code. Nothing was "
            "written: give another --out and compare the two reports."
        )
    return True


def _lay(place: Path, part: _Part) -> None:
    """Write one unit, its status last, so that a kill leaves it owed. A training that others used is left as it is.

    Of a training that nothing was evaluated of, nothing stays: its rest is no part of the one that is laid down.
    """
    before = read_status(place)
    if not before.evaluations:
        _clear(place)
    for name, content in part.files.items():
        if before.evaluations and (place / name).exists():
            continue
        with replace_file(place / name) as temporary:
            temporary.write_bytes(content)
    (place / "failure.txt").unlink(missing_ok=True)
    write_status(place, replace(part.status, evaluations={**before.evaluations, **part.status.evaluations}))


def _clear(place: Path) -> None:
    for name in (METRICS_FILE, COMMITS_FILE, ROLLOUTS_FILE, ALARMS_FILE):
        (place / name).unlink(missing_ok=True)
    for folder in (*place.glob(_CHECKPOINTS), place / WAYPOINTS_FOLDER):
        shutil.rmtree(folder, ignore_errors=True)


def _collect(root: Path, config: dict[str, Any]) -> int:
    """Write results.parquet from the finished units of a configuration; returns their number."""
    gather(root, lambda: _places(root, config), grid=config["digest"])
    return len(_places(root, config))


def _places(root: Path, config: dict[str, Any]) -> list[tuple[Path, str]]:
    return [(root / unit.folder, unit.digest) for unit in finished_units(root, config)]
