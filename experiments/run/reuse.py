"""`dllm-rl grid --reuse RUN`: what another run on this disk finished is taken from there instead of run again.

A training is known by the digest of everything that decides it, an evaluation by its own. Where another run has a unit
of the same training, its files are copied; where that unit was evaluated in the same way as well, its rows too, under
this grid's labels. Training that was packed without its checkpoint is of use only together with its evaluation.
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
        if same.is_done or (not unit.is_warm_start and _is_trained(unit, source)):
            found.append(Match(unit=unit, source=same, is_evaluated=same.is_done))
    return found


def reuse_units(matches: list[Match], other: RunFolder) -> None:
    """Copy what was matched. Raises DamagedResultError where a finished evaluation is not what was written."""
    for match in matches:
        with claim(match.unit.folder) as is_mine:
            if is_mine and not match.unit.files.is_done:
                _take(match, other)


def _take(match: Match, other: RunFolder) -> None:
    """Copy a unit. The policy comes last and at once: a training without one is begun anew, wherever a kill falls."""
    unit, source = match.unit, match.source
    if match.is_evaluated:
        source.refuse_damaged()
    left_out = [".lock", ".*.tmp", "evaluation-*.parquet", RECORD_FILE, STATUS_FILE, CHECKPOINTS]
    # Films of other tasks do not belong here.
    left_out += [] if match.is_evaluated else [SNAPSHOTS_FOLDER]
    shutil.copytree(source.path, unit.folder, ignore=shutil.ignore_patterns(*left_out), dirs_exist_ok=True)
    _take_checkpoint(source.path / CHECKPOINT, unit.folder / CHECKPOINT)
    record, status = source.record(), source.status
    made_by = record.versions if record is not None else {}
    write_json(unit.folder / RECORD_FILE, {**unit.settings, "versions": made_by})
    origin = status.taken_from or f"{other.config.preset} {other.config.digest}"
    taken = Status(state="owed", seconds=status.seconds, taken_from=origin)
    if match.is_evaluated:
        write_rows(unit.files.rows_file, pq.read_table(source.rows_file, schema=SCHEMA).to_pylist(), **unit.labels)
        evaluations = {unit.digest: sha256(unit.files.rows_file)}
        taken = replace(
            taken,
            state="done",
            cause=status.cause,
            digest=unit.digest,
            stopped_at=status.stopped_at,
            evaluations=evaluations,
        )
    write_status(unit.folder, taken)


def _take_checkpoint(source: Path, target: Path) -> None:
    if not source.is_dir():
        return
    for torn in (target, *target.parent.glob(".taken-*")):
        shutil.rmtree(torn, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".taken-") as folder:
        shutil.copytree(source, Path(folder) / CHECKPOINT)
        (Path(folder) / CHECKPOINT).rename(target)


def _training(folder: Path) -> tuple[str, int | None] | None:
    """Full digest of a unit's training, and its seed; None where it has not begun."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    record = read_json(path)
    return record["training_digest"], record["seed"]


def _is_trained(unit: Unit, source: UnitFolder) -> bool:
    """Whether the whole training lies there, with the policy that it ended in."""
    if not (source.path / CHECKPOINT).is_dir():
        return False
    is_over = len(source.metrics()) >= unit.cell.train["steps"] or read_status(source.path).stopped_at is not None
    return is_over and not [path for path in source.path.glob(CHECKPOINTS) if path.name != CHECKPOINT]
