"""`dllm-rl grid --reuse RUN`: what another run on this disk finished is taken from there instead of run again.

A training is known by the digest of everything that decides it, an evaluation by its own. Where another run has a unit
of the same training, its files are copied; where that unit was evaluated in the same way as well, its rows too, under
this grid's labels. Training that was packed without its checkpoint is of use only together with its evaluation. What
lies here stays: a whole training is not copied over, and other evaluations of a unit stay finished.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from dllm_rl.errors import ConfigError
from dllm_rl.files import read_json, sha256, write_json
from experiments.design.units import GridPlan, Unit
from experiments.run.folder import (
    CHECKPOINT,
    CHECKPOINTS,
    RECORD_FILE,
    SNAPSHOTS_FOLDER,
    STATE_FILE,
    STATUS_FILE,
    RunFolder,
    UnitFolder,
)
from experiments.run.results import SCHEMA, write_rows
from experiments.run.runner import owed_units
from experiments.run.status import Status, claim, read_status, write_status


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """An owed unit and the one that has it.

    Attributes:
        unit: Of the grid that is run.
        source: The same training, or the same evaluation of a warm start, in the other run.
        is_evaluated: Whether the other run evaluated it in the same way; else only its training is taken.
    """

    unit: Unit
    source: UnitFolder
    is_evaluated: bool


def find_matches(plan: GridPlan, other: RunFolder) -> list[Match]:
    """The owed units that another run has, trained at least, in the plan's order."""
    if other.root.resolve() == plan.root.resolve():
        raise ConfigError(f"--reuse {other.root} is the folder that this grid is run in. Name another run.")
    trained = {_training(unit.path): unit for unit in other.units() if unit.cell is not None}
    evaluated = {unit.path.name.rpartition("-")[2]: unit for unit in other.units() if unit.cell is None}
    found: list[Match] = []
    for unit in owed_units(plan):
        if unit.is_warm_start:
            source = evaluated.get(unit.folder.name.rpartition("-")[2])
        else:
            source = trained.get((unit.settings["training_digest"], unit.seed))
        if source is None:
            continue
        same = replace(source, digest=unit.digest)
        is_wanted = not unit.is_warm_start and _is_trained(unit, source) and not _is_trained(unit, unit.files)
        if same.is_done or is_wanted:
            found.append(Match(unit=unit, source=same, is_evaluated=same.is_done))
    return found


def reuse_units(matches: list[Match], other: RunFolder) -> None:
    """Copy what was matched. Raises DamagedResultError where a finished evaluation is not what was written."""
    for match in matches:
        with claim(match.unit.folder) as is_mine:
            if is_mine and not match.unit.files.is_done:
                _take(match, other)


def _take(match: Match, other: RunFolder) -> None:
    """Copy a unit, its status last."""
    unit, source = match.unit, match.source
    if match.is_evaluated:
        source.refuse_damaged()
    before, origin = read_status(unit.folder), source
    taken = replace(before, state="owed", cause="", pid=0)
    if not unit.is_warm_start and _is_trained(unit, unit.files):
        origin = unit.files
    else:
        _take_training(match)
        name = source.status.taken_from or f"{other.config.preset} {other.config.digest}"
        taken = replace(taken, seconds=source.status.seconds, taken_from=name)
    record = origin.record()
    made_by = {} if record is None else {"trained_by": record.trained_by}
    versions = {} if record is None else record.versions
    write_json(unit.folder / RECORD_FILE, {**unit.settings, **made_by, "versions": versions})
    write_status(unit.folder, _with_rows(taken, match) if match.is_evaluated else taken)


def _take_training(match: Match) -> None:
    """Copy the files of a training.

    The policy comes last and at once: wherever a kill falls, the training goes on from the policy that lies here, or is
    begun anew.
    """
    unit, source = match.unit, match.source
    left_out = [".lock", ".*.tmp", "evaluation-*.parquet", RECORD_FILE, STATUS_FILE, CHECKPOINTS]
    # Films of other tasks do not belong here.
    left_out += [] if match.is_evaluated else [SNAPSHOTS_FOLDER]
    shutil.copytree(source.path, unit.folder, ignore=shutil.ignore_patterns(*left_out), dirs_exist_ok=True)
    if (source.path / CHECKPOINT).is_dir():
        _take_checkpoint(source.path / CHECKPOINT, unit.folder)


def _take_checkpoint(source: Path, folder: Path) -> None:
    for torn in folder.glob(".taken-*"):
        shutil.rmtree(torn, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".taken-") as temporary:
        fresh = Path(temporary) / CHECKPOINT
        shutil.copytree(source, fresh)
        for own in folder.glob(CHECKPOINTS):
            own.rename(Path(temporary) / f"own-{own.name}")
        fresh.rename(folder / CHECKPOINT)


def _with_rows(taken: Status, match: Match) -> Status:
    """Copy the rows of an evaluation; the status with it."""
    unit, source = match.unit, match.source
    write_rows(unit.files.rows_file, pq.read_table(source.rows_file, schema=SCHEMA).to_pylist(), **unit.labels)
    return replace(
        taken,
        state="done",
        cause=source.status.cause,
        digest=unit.digest,
        stopped_at=source.status.stopped_at,
        evaluations={**taken.evaluations, unit.digest: sha256(unit.files.rows_file)},
    )


def _training(folder: Path) -> tuple[str, int | None] | None:
    """Full digest of a unit's training, and its seed; None where it has not begun."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    record = read_json(path)
    return record["training_digest"], record["seed"]


def _is_trained(unit: Unit, files: UnitFolder) -> bool:
    """Whether the whole training lies there, with the policy that it ended in."""
    state = files.path / CHECKPOINT / STATE_FILE
    if not state.is_file():
        return False
    stopped_at = files.alarms().stopped_at
    num_steps = unit.cell.train["steps"] if stopped_at is None else stopped_at + 1
    is_over = min(read_json(state)["step"], len(files.metrics())) >= num_steps
    return is_over and not [path for path in files.path.glob(CHECKPOINTS) if path.name != CHECKPOINT]
