"""The folder of a run: the one place that knows where things lie in it (`records` says what they hold).

config.json  results.parquet  self_check.json  outcomes.sqlite  report.html  report.json
warmstart/<policy>-<digest>/        evaluation-<digest>.parquet  status.json  cell.json  waypoints/
cells/<cell>-<digest>/seed<k>/      the same, and metrics.jsonl  rollouts.jsonl  commit_order.jsonl  alarms.json
                                    checkpoint/

A folder of cells is keyed by its training, an evaluation by its own digest: another evaluation trains nothing again and
leaves the earlier one as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from dllm_rl.errors import ConfigError, DllmRlError
from dllm_rl.files import COMMITS_FILE, METRICS_FILE, read_json, read_rows, sha256, write_json
from experiments.design.config import validate
from experiments.run.records import AlarmsRecord, CellRecord, GridRecord, SnapshotRecord, UnitRecord
from experiments.run.results import SCHEMA, UnitKey, grid_of, merge
from experiments.run.status import Status, read_status

CONFIG_FILE, RESULTS_FILE, SELF_CHECK_FILE = "config.json", "results.parquet", "self_check.json"
# What plans came to. Here and not in the cache of the user, so that a study stands on its own executions.
OUTCOMES_FILE = "outcomes.sqlite"
STATUS_FILE, RECORD_FILE, ALARMS_FILE, SNAPSHOTS_FOLDER = "status.json", "cell.json", "alarms.json", "waypoints"
# Names of `dllm_rl.training.checkpoint`, whose import would load PyTorch: the last one, and what a kill leaves of two.
CHECKPOINT, CHECKPOINTS = "checkpoint", "*checkpoint*"
# In a checkpoint: after how many steps it was written.
STATE_FILE = "state.json"
_DIGITS = 10


class DamagedResultError(DllmRlError):
    """A finished result that is not what was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFolder:
    """The files of one unit, as far as one evaluation of it goes.

    Attributes:
        key: Which unit.
        path: Its folder.
        digest: Of the evaluation; its first ten digits are enough, as they are in the file's name.
        cell: The cell that it is a seed of; None for a warm start.
    """

    key: UnitKey
    path: Path
    digest: str
    cell: CellRecord | None = None

    @property
    def rows_file(self) -> Path:
        """Where the rows of this evaluation lie."""
        return self.path / f"evaluation-{self.digest[:_DIGITS]}.parquet"

    @property
    def is_done(self) -> bool:
        """Whether this evaluation lies on disk, finished."""
        return self._finished(read_status(self.path)) is not None

    @property
    def status(self) -> Status:
        """State of this evaluation: `done` if its results are on disk, whatever was tried later."""
        status = read_status(self.path)
        digest = self._finished(status)
        if digest is not None:
            if status.state == "done":
                return replace(status, digest=digest)
            # What was tried later says nothing of how training ended.
            end = self.alarms()
            return replace(status, state="done", digest=digest, cause=end.because, stopped_at=end.stopped_at)
        return replace(status, state="owed", cause="") if status.state == "done" else status

    def is_evaluation(self, digest: str) -> bool:
        """Whether a digest is that of this evaluation."""
        return digest[:_DIGITS] == self.digest[:_DIGITS]

    def _finished(self, status: Status) -> str | None:
        """Full digest of this evaluation where it is finished."""
        digests = (key for key in status.evaluations if self.is_evaluation(key))
        return next(digests, None) if self.rows_file.is_file() else None

    def refuse_damaged(self) -> None:
        """Raise DamagedResultError where the finished evaluation is not what was written."""
        status = self.status
        if sha256(self.rows_file) != status.evaluations[status.digest]:
            raise DamagedResultError(
                f"'{self.rows_file}' does not match its recorded hash: the disk damaged it, or it was edited. "
                "Delete it, and `dllm-rl grid` evaluates this cell again."
            )

    def metrics(self) -> list[dict[str, Any]]:
        """Rows of the training's metrics, one a step; a last line torn by a kill is left out."""
        return read_rows(self.path / METRICS_FILE)

    def commit_orders(self) -> list[dict[str, Any]]:
        """Commit orders of the training steps that kept them."""
        return read_rows(self.path / COMMITS_FILE)

    def alarms(self) -> AlarmsRecord:
        """Alarms of the training; a run without any has no file."""
        return read_alarms(self.path)

    def record(self) -> UnitRecord | None:
        """What the unit was run with last; None where it has not begun."""
        path = self.path / RECORD_FILE
        return validate(UnitRecord, read_json(path), source=f"'{path}'") if path.is_file() else None

    def snapshots(self) -> list[SnapshotRecord]:
        """Greedy plans on the way, by step."""
        paths = (self.path / SNAPSHOTS_FOLDER).glob("step*.json")
        found = [validate(SnapshotRecord, read_json(path), source=f"'{path}'") for path in paths]
        return sorted(found, key=lambda item: item.step)


def read_alarms(folder: Path) -> AlarmsRecord:
    """alarms.json of a seed's folder; a run without alarms has none."""
    path = folder / ALARMS_FILE
    return validate(AlarmsRecord, read_json(path), source=f"'{path}'") if path.is_file() else AlarmsRecord()


@dataclass(frozen=True)
class RunFolder:
    """A run folder.

    Attributes:
        given: Its configuration where it is known, such as before config.json is written.
    """

    root: Path
    given: GridRecord | None = field(default=None, repr=False)

    @classmethod
    def find(cls, run: Path) -> Self:
        """The folder of a run, given itself or the name of a preset."""
        for folder in (run, Path("runs") / run):
            if (folder / CONFIG_FILE).is_file():
                return cls(folder)
        known = sorted(path.parent.name for path in Path("runs").glob(f"*/{CONFIG_FILE}"))
        hint = f"Runs here: {', '.join(known)}." if known else "Start one: dllm-rl grid quick."
        raise ConfigError(f"'{run}' is not a run folder (it has no {CONFIG_FILE}). {hint}")

    @classmethod
    def above(cls, path: Path) -> Self | None:
        """The run folder that a file lies in; None for a file that lies elsewhere."""
        found = (folder for folder in path.resolve().parents if (folder / CONFIG_FILE).is_file())
        return next((cls(folder) for folder in found), None)

    @cached_property
    def config(self) -> GridRecord:
        """The grid's record. Raises ConfigError where the folder is not a run's, or another version's."""
        return self.given if self.given is not None else self.read_config()

    def read_config(self) -> GridRecord:
        """The grid's record as it stands in config.json now."""
        path = self.root / CONFIG_FILE
        if not path.is_file():
            raise ConfigError(
                f"'{self.root}' is not a run folder: it has no {CONFIG_FILE}. Start one with `dllm-rl grid`."
            )
        try:
            return validate(GridRecord, read_json(path), source=f"'{path}'")
        except ConfigError as error:
            raise ConfigError(
                f"{error}\nIt is not a grid's record, or another version wrote it. If '{self.root}' is a run of yours, "
                f"give the grid's own command with --out {self.root} once, and then this one again."
            ) from None

    def write_config(self) -> None:
        """Write config.json."""
        write_json(self.root / CONFIG_FILE, self.config.model_dump(mode="json"))

    def units(self) -> list[UnitFolder]:
        """All units of the grid: the warm starts, then each cell's seeds."""
        warm = [self.warm_start(policy) for policy in self.config.warm_starts]
        return warm + [self.unit(cell, seed) for cell in self.config.cells for seed in self.config.seeds]

    def unit(self, cell: CellRecord, seed: int) -> UnitFolder:
        """One seed of a cell."""
        key = UnitKey(policy=cell.policy, cell=cell.id, seed=seed)
        return UnitFolder(key=key, path=self.root / cell.folder / f"seed{seed}", digest=cell.digest, cell=cell)

    def warm_start(self, policy: str) -> UnitFolder:
        """The evaluation of a policy before training, whose folder's name ends in its digest."""
        path = self.root / self.config.warm_starts[policy]
        return UnitFolder(key=UnitKey(policy=policy), path=path, digest=path.name.rpartition("-")[2])

    def cell(self, name: str) -> CellRecord | None:
        """The cell of this name."""
        return next((cell for cell in self.config.cells if cell.id == name), None)

    def finished(self) -> list[UnitFolder]:
        """The units whose evaluation under just these settings lies on disk."""
        return [unit for unit in self.units() if unit.is_done]

    @property
    def has_results(self) -> bool:
        """Whether any results were written."""
        return (self.root / RESULTS_FILE).is_file()

    def require_results(self) -> None:
        """Raise ConfigError where nothing is finished."""
        if not self.has_results:
            raise nothing_finished(self.root)

    def results(self) -> pa.Table:
        """Rows of the finished units of this grid.

        Rows of another grid lie there while somebody begins this one, or where two share a folder: they are left out.
        """
        path = self.root / RESULTS_FILE
        is_own = path.is_file() and grid_of(path) in ("", self.config.digest)
        return pq.read_table(path, schema=SCHEMA) if is_own else SCHEMA.empty_table()

    def gather(self) -> int:
        """Write results.parquet from the finished units; returns the number of rows.

        Looks under a lock: of two processes that end at once, the one that writes last has seen what the other
        finished. Raises DamagedResultError where a finished result is not what was written.
        """
        with FileLock(self.root / ".results.lock"):
            found = self.finished()
            refuse_damaged(found)
            return merge(self.root / RESULTS_FILE, [unit.rows_file for unit in found], grid=self.config.digest)

    def warm_start_seconds(self) -> float:
        """Wall time of all evaluations before training, those of earlier settings included."""
        return sum(read_status(path.parent).seconds for path in self.root.glob(f"warmstart/*/{STATUS_FILE}"))

    def self_check(self) -> dict[str, dict[str, str]]:
        """Tasks that self-checks left out, with the reason, by the digest of tasks and environment."""
        path = self.root / SELF_CHECK_FILE
        return read_json(path) if path.is_file() else {}

    def write_self_check(self, found: dict[str, dict[str, str]]) -> None:
        """Keep the verdicts of self-checks."""
        write_json(self.root / SELF_CHECK_FILE, found)

    def report_inputs(self) -> list[Path]:
        """Every file that a report reads."""
        patterns = (CONFIG_FILE, RESULTS_FILE, STATUS_FILE, METRICS_FILE, ALARMS_FILE)
        names = (*patterns, f"{SNAPSHOTS_FOLDER}/step*.json")
        return sorted(path for pattern in names for path in self.root.rglob(pattern))

    def film(self, name: str) -> Path | None:
        """A film by its name from the run's folder; None for whatever else lies there or elsewhere."""
        path = (self.root / name).resolve()
        is_film = path.match(f"{SNAPSHOTS_FOLDER}/step*.html") and path.is_relative_to(self.root.resolve())
        return path if is_film and path.is_file() else None


def refuse_damaged(units: Iterable[UnitFolder]) -> None:
    """Raise DamagedResultError where one of these finished evaluations is not what was written."""
    for unit in units:
        unit.refuse_damaged()


def nothing_finished(root: Path) -> ConfigError:
    """What is said where a command needs results and there are none."""
    return ConfigError(f"nothing in {root} is finished yet; `dllm-rl status {root}` shows what is owed")


def place_of_cell(cell: str, training: str) -> str:
    """Folder of a cell from the run's.

    Args:
        training: Digest of its training.
    """
    return f"cells/{cell}-{training[:_DIGITS]}"


def place_of_warm_start(policy: str, digest: str) -> str:
    """Folder of a policy's evaluation before training, from the run's."""
    return f"warmstart/{policy}-{digest[:_DIGITS]}"


def refuse_unwritable(path: Path | None, *, example: str) -> None:
    """Raise ConfigError where --out names no file that can be written; None names none.

    Args:
        example: Name of a file, for the message.
    """
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"'{path}' is a folder. Give --out a file, such as '{path / example}'.")
    place = next(folder for folder in path.absolute().parents if folder.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise ConfigError(
            f"'{path}' cannot be written (nothing can be written to '{place}'). Give another file with --out."
        )


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
