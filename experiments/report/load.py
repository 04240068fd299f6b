"""What a report reads of a run folder, read once: evaluated rollouts, and metrics and state of every seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from experiments.analysis.stats import CellInfo
from experiments.run.folder import CellRecord, GridRecord, RunFolder, SnapshotRecord, UnitFolder
from experiments.run.status import State, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRun:
    """One unit: a seed of a cell, or a policy's warm start (seed None).

    metrics: rows of its training, one a step.
    commits: commit orders that it kept.
    status: its state.
    snapshots: greedy plans on the way, whose films are named from the run folder, where the page lies.
    versions: of what made its evaluation, by package; empty where there is none, or it is not known.
    """

    name: str
    seed: int | None
    metrics: list[dict[str, Any]]
    commits: list[dict[str, Any]]
    status: Status
    snapshots: list[SnapshotRecord]
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRun:
    """One cell with its seeds, in the order of the configuration. warm_start: of its policy, where the grid has one."""

    record: CellRecord
    seeds: tuple[UnitRun, ...]
    warm_start: UnitRun | None

    @property
    def id(self) -> str:
        """Name of the cell."""
        return self.record.id

    def info(self, num_collapsed: int) -> CellInfo:
        """What the statistics need to know."""
        warm_state: State = "owed" if self.warm_start is None else self.warm_start.status.state
        return CellInfo(
            id=self.record.id,
            policy=self.record.policy,
            objective=self.record.objective,
            role=self.record.role,
            seeds=tuple(run.seed for run in self.seeds if run.seed is not None),
            num_collapsed=num_collapsed,
            num_stopped=sum(run.status.label == "stopped" for run in self.seeds),
            owed_seeds=tuple(run.seed for run in self.seeds if run.seed is not None and run.status.state != "failed"),
            is_warm_start_owed=warm_state != "failed",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A whole run. warm_starts: by policy. warm_start_seconds: wall time of all evaluations before training."""

    config: GridRecord
    results: pa.Table
    cells: tuple[CellRun, ...]
    warm_starts: dict[str, UnitRun]
    warm_start_seconds: float

    @property
    def units(self) -> list[UnitRun]:
        """All units: the warm starts, then each cell's seeds."""
        return [*self.warm_starts.values(), *(seed for cell in self.cells for seed in cell.seeds)]


def load_run(root: Path) -> Run:
    """Read a run folder; what is not there yet (a running grid) is empty."""
    folder = RunFolder(root)
    config = folder.config
    warm_starts = {policy: _load(folder.warm_start(policy), root) for policy in config.warm_starts}
    return Run(
        config=config,
        results=folder.results(),
        cells=tuple(
            CellRun(
                record=cell,
                seeds=tuple(_load(folder.unit(cell, seed), root) for seed in config.seeds),
                warm_start=warm_starts.get(cell.policy),
            )
            for cell in config.cells
        ),
        warm_starts=warm_starts,
        warm_start_seconds=folder.warm_start_seconds(),
    )


def _load(unit: UnitFolder, root: Path) -> UnitRun:
    status = unit.status
    return UnitRun(
        name=unit.key.name,
        seed=unit.key.seed,
        metrics=unit.metrics(),
        commits=unit.commit_orders(),
        status=status,
        snapshots=[_with_films(item, unit.path.relative_to(root).as_posix()) for item in unit.snapshots()],
        versions=_versions(unit) if status.state == "done" else {},
    )


def _versions(unit: UnitFolder) -> dict[str, str]:
    """What made the evaluation; empty where cell.json tells of another one."""
    record = unit.record()
    return record.versions if record is not None and unit.is_evaluation(record.digest) else {}


def _with_films(snapshot: SnapshotRecord, place: str) -> SnapshotRecord:
    rows = tuple({**row, "film": f"{place}/{row['film']}"} for row in snapshot.rows)
    return SnapshotRecord(step=snapshot.step, rows=rows)
