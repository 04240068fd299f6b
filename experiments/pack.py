"""`dllm-rl pack`: the finished units of a run as one small file, with all that report, verdicts and diagnosis read.

Checkpoints and optimiser states stay where they are, as does whatever is not finished: another machine does it anew.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dllm_rl.errors import ConfigError
from dllm_rl.jsonl import COMMITS_FILE, METRICS_FILE, ROLLOUTS_FILE
from experiments.archive import Archive, hash_of_bytes, write_archive
from experiments.collapse.online import ALARMS_FILE
from experiments.run_folder import WAYPOINTS_FOLDER, read_json, read_status, rows_file, status_of

# Training rollouts are for `replay` alone: 50 steps of 64 are about a megabyte, which packs to 20 kilobytes.
MAX_ROLLOUTS_BYTES = 256 * 1024
# Films of one unit; the usual thirteen are one megabyte, which packs to some ten kilobytes.
MAX_WAYPOINTS_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A finished unit of a run. folder: from the run's. digest: of its evaluation."""

    folder: str
    digest: str

    @property
    def rows_name(self) -> str:
        """Name of its evaluated rows, from the run's folder."""
        return rows_file(Path(self.folder), self.digest).as_posix()


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """What `pack` wrote. left_out: bytes of what was too large, by what it is."""

    path: Path
    num_units: int
    num_planned: int
    num_bytes: int
    left_out: dict[str, int]


def pack_run(root: Path, out: Path | None = None, *, with_rollouts: bool = False) -> Packed:
    """Pack the finished units of a run folder. out: default <preset>-<digest>.tar.xz, here.

    with_rollouts: training rollouts whatever their size. Raises ConfigError where nothing is finished, or an evaluation
    is not what was written.
    """
    config = read_json(root / "config.json")
    path = out or Path(f"{config['preset']}-{config['digest'][:8]}.tar.xz")
    if path.is_dir():
        raise ConfigError(f"'{path}' is a folder. Give --out a file, such as '{path / 'run.tar.xz'}'.")
    units = finished_units(root, config)
    if not units:
        raise ConfigError(f"nothing in {root} is finished yet; `dllm-rl status {root}` shows what is owed")
    files = {name: (root / name).read_bytes() for name in ("config.json", "self_check.json") if (root / name).is_file()}
    left_out: dict[str, int] = {}
    for unit in units:
        files |= _unit_files(root, unit, with_rollouts, left_out)
    size = write_archive(path, Archive(preset=config["preset"], grid=config["digest"], files=files))
    planned = len(config["cells"]) * len(config["seeds"]) + len(config["warm_starts"])
    return Packed(path=path, num_units=len(units), num_planned=planned, num_bytes=size, left_out=left_out)


def finished_units(root: Path, config: dict[str, Any]) -> list[Finished]:
    """Units of a run, by its config.json, whose evaluation under just these settings lies on disk.

    Raises ConfigError where the configuration does not say which evaluation that is.
    """
    unnamed = [cell["id"] for cell in config["cells"] if not cell.get("digest")]
    if unnamed:
        raise ConfigError(
            f"'{root / 'config.json'}' has no digest of '{unnamed[0]}': another version wrote it. Give the grid's own "
            f"command with --out {root} once, and then this one again."
        )
    found = []
    for folder in config["warm_starts"].values():
        # The folder's name ends in the digest of the one evaluation that it can hold.
        digests = [key for key in read_status(root / folder).evaluations if folder.endswith(f"-{key[:10]}")]
        found += [Finished(folder=folder, digest=key) for key in digests]
    for cell in config["cells"]:
        places = [f"{cell['folder']}/seed{seed}" for seed in config["seeds"]]
        found += [
            Finished(folder=place, digest=cell["digest"])
            for place in places
            if cell["digest"] in read_status(root / place).evaluations
        ]
    return [unit for unit in found if (root / unit.rows_name).is_file()]


def _unit_files(root: Path, unit: Finished, with_rollouts: bool, left_out: dict[str, int]) -> dict[str, bytes]:
    """Files of one unit by their names from the run's folder; adds to `left_out` what is too large."""
    place = root / unit.folder
    status = status_of(place, unit.digest)
    rows = (root / unit.rows_name).read_bytes()
    if hash_of_bytes(rows) != status.evaluations[unit.digest]:
        raise ConfigError(
            f"'{root / unit.rows_name}' does not match its recorded hash: the disk damaged it, or it was edited. "
            "Delete it, and `dllm-rl grid` evaluates this cell again; then pack."
        )
    # As a run that evaluated just this, and whose process is gone.
    status = replace(status, pid=0, evaluations={unit.digest: hash_of_bytes(rows)})
    found = {"status.json": (json.dumps(asdict(status), indent=2) + "\n").encode(), Path(unit.rows_name).name: rows}
    for name in ("cell.json", METRICS_FILE, COMMITS_FILE, ALARMS_FILE):
        if (place / name).is_file():
            found[name] = (place / name).read_bytes()
    rollouts = place / ROLLOUTS_FILE
    if rollouts.is_file():
        if with_rollouts or rollouts.stat().st_size <= MAX_ROLLOUTS_BYTES:
            found[ROLLOUTS_FILE] = rollouts.read_bytes()
        else:
            left_out["training rollouts"] = left_out.get("training rollouts", 0) + rollouts.stat().st_size
    films = sorted(path for path in (place / WAYPOINTS_FOLDER).glob("step*") if path.suffix in (".json", ".html"))
    size = sum(path.stat().st_size for path in films)
    if size <= MAX_WAYPOINTS_BYTES:
        found |= {f"{WAYPOINTS_FOLDER}/{path.name}": path.read_bytes() for path in films}
    else:
        left_out["waypoints"] = left_out.get("waypoints", 0) + size
    return {f"{unit.folder}/{name}": content for name, content in found.items()}
