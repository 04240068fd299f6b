"""The finished units of a run as one small file, for another machine or other readers, and `dllm-rl unpack`.

The file is a tar.xz whose bytes depend on its contents alone: files of a run folder under their names there, and first
a manifest with the hash of each. Checkpoints and optimiser states stay where they are. What is unpacked is checked in
a temporary folder, as a run folder, before anything is written. Which of its units count is decided as ever: a unit is
done where its evaluation carries the digest that the settings, tasks, checkpoint and code of this machine have.
"""

from __future__ import annotations

import json
import lzma
import shutil
import tarfile
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dllm_rl.errors import ConfigError
from dllm_rl.files import COMMITS_FILE, METRICS_FILE, ROLLOUTS_FILE, replace_file, sha256
from experiments.run.folder import (
    ALARMS_FILE,
    CHECKPOINTS,
    CONFIG_FILE,
    RECORD_FILE,
    SELF_CHECK_FILE,
    SNAPSHOTS_FOLDER,
    STATUS_FILE,
    DamagedResultError,
    RunFolder,
    UnitFolder,
    make_folder,
    refuse_damaged,
)
from experiments.run.results import is_equal
from experiments.run.status import claim, is_claimed, read_status, write_status

MANIFEST = "dllm_rl_run.json"
FORMAT = 1
# Unpacked: a study with every rollout stays far below; a file made to fill a disk does not.
READ_BYTES = 1 << 20
MAX_BYTES = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """What `unpack` did.

    Attributes:
        num_new: Units that were written.
        num_known: Units that were there already.
        num_judged: Finished units of the folder's configuration now.
        is_other: Whether that is another configuration than the archive's; it stays.
    """

    root: Path
    num_new: int
    num_known: int
    num_judged: int
    is_other: bool


def kept_of(unit: UnitFolder) -> list[Path]:
    """Files of a finished unit that every archive has, but for its status."""
    names = (RECORD_FILE, METRICS_FILE, COMMITS_FILE, ALARMS_FILE)
    return [path for path in (unit.rows_file, *(unit.path / name for name in names)) if path.is_file()]


def rollouts_of(unit: UnitFolder) -> list[Path]:
    """Its training rollouts."""
    path = unit.path / ROLLOUTS_FILE
    return [path] if path.is_file() else []


def snapshots_of(unit: UnitFolder) -> list[Path]:
    """Plans and films on the way."""
    paths = (unit.path / SNAPSHOTS_FOLDER).glob("step*")
    return sorted(path for path in paths if path.suffix in (".json", ".html"))


def unpack_run(path: Path, out: Path | None = None) -> Unpacked:
    """Write the units of an archive into a run folder.

    Args:
        out: Default runs/<preset>.

    Raises ConfigError or DamagedResultError, and writes nothing, where the archive is damaged or is not one, where an
    evaluation does not match the hash its unit recorded, where the folder is another preset's, or has a finished unit
    with other rollouts.
    """
    with tempfile.TemporaryDirectory() as temporary:
        there = _extracted(path, Path(temporary))
        return _lay_down(path, there, out or Path("runs") / there.config.preset)


def _extracted(path: Path, folder: Path) -> RunFolder:
    """The archive as a run folder of its own, checked."""
    _extract(path, folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        hashes, is_known = dict(manifest["files"]), manifest["format"] == FORMAT
        name = (manifest["preset"], manifest["grid"])
    except (OSError, KeyError, ValueError, TypeError):
        raise _refused(path, "is not an archive of `dllm-rl pack`: it has no manifest of a run") from None
    if not is_known:
        raise ConfigError(f"'{path}' has format {manifest['format']}, and this version reads {FORMAT}: update dllm_rl.")
    (folder / MANIFEST).unlink()
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    wrong = sorted(hashes.keys() ^ files.keys()) or [name for name in files if sha256(files[name]) != hashes[name]]
    if wrong:
        raise _refused(path, f"is damaged: '{wrong[0]}' is not what was packed. Copy it again, or pack it again")
    run = RunFolder(folder)
    try:
        if (run.config.preset, run.config.digest) != name:
            raise _refused(path, "holds a configuration that is not its own")
        known = {folder / CONFIG_FILE, folder / SELF_CHECK_FILE}
        for unit in run.finished():
            unit.refuse_damaged()
            known |= {unit.path / STATUS_FILE, *kept_of(unit), *rollouts_of(unit), *snapshots_of(unit)}
    except DamagedResultError:
        raise _refused(path, "holds rows that do not match their recorded hash") from None
    except ConfigError as error:
        raise _refused(path, f"holds no configuration of a grid that this version reads: {error}") from None
    foreign = sorted(name for name, file in files.items() if file not in known)
    if foreign:
        raise _refused(path, f"holds '{foreign[0]}', which is not a file of a finished unit of its configuration")
    return run


def _extract(path: Path, folder: Path) -> None:
    """Extract plain files, each once, and none outside of the folder.

    Python before 3.11.4 has no filters for `TarFile.extract`, and nothing but names and contents is wanted.
    """
    num_bytes = 0
    try:
        # The stream is read to its end, where its own checksum stands.
        with lzma.open(path) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for entry in tar:
                num_bytes += entry.size
                if num_bytes > MAX_BYTES:
                    raise _refused(path, f"unpacks to over {MAX_BYTES:,} bytes, which no run needs")
                place = folder / entry.name
                if not place.resolve().is_relative_to(folder.resolve()):
                    raise _refused(path, f"holds '{entry.name}', a file that would lie elsewhere")
                content = tar.extractfile(entry) if entry.isreg() else None
                if content is None or place.exists():
                    raise _refused(path, f"holds '{entry.name}', which is not a plain file, or is there twice")
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("wb") as file:
                    shutil.copyfileobj(content, file)
            while stream.read(READ_BYTES):
                pass
    except FileNotFoundError:
        raise ConfigError(f"there is no file '{path}'. `dllm-rl pack RUN` writes one.") from None
    except IsADirectoryError:
        raise ConfigError(f"'{path}' is a folder; give the file that `dllm-rl pack` wrote.") from None
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        if num_bytes:
            raise _refused(path, f"is damaged ({error}). Copy it again, or pack it again") from None
        raise _refused(path, "is damaged, or is not an archive of `dllm-rl pack`") from None


def _refused(path: Path, why: str) -> ConfigError:
    return ConfigError(f"'{path}' {why}. Nothing was written.")


def _lay_down(path: Path, there: RunFolder, root: Path) -> Unpacked:
    here = RunFolder(root, None if (root / CONFIG_FILE).is_file() else there.config)
    if here.config.preset != there.config.preset:
        raise ConfigError(
            f"'{root}' is a run of '{here.config.preset}' and '{path}' one of '{there.config.preset}': give another "
            "--out."
        )
    refuse_damaged(here.finished())
    checked = _self_checks(here, there)
    units = there.finished()
    places = [(unit, root / unit.path.relative_to(there.root)) for unit in units]
    fresh = [(unit, place) for unit, place in places if not _is_there(unit, place)]
    # Looked at before any is claimed, which makes folders.
    for _, place in fresh:
        if is_claimed(place):
            raise _taken(place)
    make_folder(root)
    with ExitStack() as claims:
        for _, place in fresh:
            if not claims.enter_context(claim(place)):
                raise _taken(place)
        for unit, place in fresh:
            _write_unit(unit, place)
    if checked:
        here.write_self_check(checked)
    if here.given is not None:
        _copy(there.root / CONFIG_FILE, root / CONFIG_FILE)
    here.gather()
    return Unpacked(
        root=root,
        num_new=len(fresh),
        num_known=len(units) - len(fresh),
        num_judged=len(here.finished()),
        is_other=here.config.digest != there.config.digest,
    )


def _taken(place: Path) -> ConfigError:
    return ConfigError(f"a process works on '{place}' now. Stop it, or unpack to another --out.")


def _self_checks(here: RunFolder, there: RunFolder) -> dict[str, Any]:
    """Self-checks of the folder and of the archive; they decide which tasks are used, so they may not differ."""
    ours, theirs = here.self_check(), there.self_check()
    for key in theirs.keys() & ours.keys():
        if theirs[key].keys() != ours[key].keys():
            raise ConfigError(
                f"the self-check of '{here.root}' left out {sorted(ours[key])} and the archive's {sorted(theirs[key])} "
                "of the same tasks, so their results do not compare. Give another --out."
            )
    return {**theirs, **ours}


def _is_there(unit: UnitFolder, place: Path) -> bool:
    """Whether a folder has this evaluation already; raises where it has one with other rollouts."""
    ours = replace(unit, path=place)
    if not ours.is_done:
        return False
    ours.refuse_damaged()
    # Wall times differ wherever the same unit was run twice.
    if not is_equal(ours.rows_file, unit.rows_file):
        raise ConfigError(
            f"'{place}' is finished with other rollouts than the archive's, under equal settings and code. Nothing was "
            "written: give another --out and compare the two reports."
        )
    return True


def _write_unit(unit: UnitFolder, place: Path) -> None:
    """Write one unit, its status last, so that a kill leaves it owed. A training that others used is left as it is.

    Where nothing was evaluated of the training that lies there, nothing of it stays beside the one that is unpacked.
    """
    before = read_status(place)
    if not before.evaluations:
        for name in (METRICS_FILE, COMMITS_FILE, ROLLOUTS_FILE, ALARMS_FILE):
            (place / name).unlink(missing_ok=True)
        for folder in (*place.glob(CHECKPOINTS), place / SNAPSHOTS_FOLDER):
            shutil.rmtree(folder, ignore_errors=True)
    for file in (*kept_of(unit), *rollouts_of(unit), *snapshots_of(unit)):
        target = place / file.relative_to(unit.path)
        if not (before.evaluations and target.exists()):
            _copy(file, target)
    (place / "failure.txt").unlink(missing_ok=True)
    status = read_status(unit.path)
    write_status(place, replace(status, evaluations={**before.evaluations, **status.evaluations}))


def _copy(source: Path, target: Path) -> None:
    with replace_file(target) as temporary:
        shutil.copyfile(source, temporary)


def unpack(file: Path, out: Path | None) -> int:
    """Unpack a file and say what is finished now, and how to go on."""
    done = unpack_run(file, out)
    print(f"{done.root}: {done.num_new} units unpacked, {done.num_known} were there already")
    if done.is_other:
        print(
            f"This folder's configuration is another than the file's, and stays: {done.num_judged} finished units "
            "belong to it. The others count where settings and code are those that made them."
        )
    print(f"`dllm-rl report {done.root}` judges them; the grid's own command with --out {done.root} runs what is owed.")
    return 0
