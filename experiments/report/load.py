"""What a report reads of a run folder, once: evaluated rollouts, metrics and state of every seed, plans to show."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from experiments.analysis.verdicts import CellInfo
from experiments.run.folder import RunFolder, UnitFolder
from experiments.run.records import CellRecord, GridRecord, SnapshotRecord
from experiments.run.results import UnitKey, is_lost
from experiments.run.status import State, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRun:
    """One unit: a seed of a cell, or a policy's warm start (seed None).

    Attributes:
        metrics: Rows of its training, one a step.
        commits: Commit orders that it kept.
        status: Its state.
        snapshots: Greedy plans on the way, whose films are named from the run folder, where the page lies.
        versions: Of what made its evaluation, and of what trained it, by package; without what is not known.
    """

    name: str
    seed: int | None
    metrics: list[dict[str, Any]]
    commits: list[dict[str, Any]]
    status: Status
    snapshots: list[SnapshotRecord]
    versions: tuple[dict[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRun:
    """One cell with its seeds, in the order of the configuration.

    Attributes:
        warm_start: Of its policy, where the grid has one.
        is_reward_comparable: Whether it is paid the reward that its warm start was evaluated with.
    """

    record: CellRecord
    seeds: tuple[UnitRun, ...]
    warm_start: UnitRun | None
    is_reward_comparable: bool

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
    """A whole run.

    Attributes:
        warm_starts: By policy.
        warm_start_seconds: Wall time of all evaluations before training.
    """

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
                is_reward_comparable=config.reward_of(cell) == config.reward_of(config.first_of(cell.policy)),
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
        versions=_versions(unit) if status.state == "done" else (),
    )


def _versions(unit: UnitFolder) -> tuple[dict[str, str], ...]:
    """What trained the unit, and what made the evaluation, where cell.json does not tell of another one."""
    record = unit.record()
    if record is None:
        return ()
    return (*record.trained_by, record.versions) if unit.is_evaluation(record.digest) else record.trained_by


def _with_films(snapshot: SnapshotRecord, place: str) -> SnapshotRecord:
    rows = tuple({**row, "film": f"{place}/{row['film']}"} for row in snapshot.rows)
    return SnapshotRecord(step=snapshot.step, rows=rows)


_FIELDS = ("plan", "success", "submitted", "reward", "field_accuracy", "near_miss", "fault", "notes")
_CHANGES = (
    ("newly solved", False, True),
    ("newly lost", True, False),
    ("still missed", False, False),
    ("solved both times", True, True),
)
MAX_EXAMPLES = 3


def examples_of(run: Run) -> dict[str, list[dict[str, Any]]]:
    """Examples of each cell: greedy plans of its first seed against the warm start's, at most three."""
    greedy: dict[str, dict[str, dict[str, Any]]] = {}
    first_seed: dict[str, int] = {}
    for row in run.results.select(["cell", "seed", "task_id", "mode", *_FIELDS]).to_pylist():
        if row["mode"] != "greedy" or is_lost(row["fault"]):
            continue
        if first_seed.setdefault(row["cell"], row["seed"]) == row["seed"]:
            greedy.setdefault(row["cell"], {})[row["task_id"]] = {name: row[name] for name in _FIELDS}
    return {
        cell.id: _examples(greedy.get(UnitKey(policy=cell.record.policy).label, {}), greedy.get(cell.id, {}))
        for cell in run.cells
    }


def _examples(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    chosen = []
    for change, was, became in _CHANGES:
        tasks = [
            task
            for task in sorted(before.keys() & after.keys())
            if before[task]["success"] == was and after[task]["success"] == became
        ]
        # A plan that changed says more than one that did not.
        tasks.sort(key=lambda task: before[task]["plan"] == after[task]["plan"])
        if tasks:
            chosen.append({"task": tasks[0], "change": change, "before": before[tasks[0]], "after": after[tasks[0]]})
    return chosen[:MAX_EXAMPLES]


def snapshots_of(cell: CellRun) -> dict[str, Any] | None:
    """What the page shows of one cell; None where no seed took a snapshot, the warm start none, or none of a task.

    Best is the snapshot before which the mean training reward, since the snapshot before it, was highest: nothing
    that is evaluated. Tasks that a snapshot lacks (the evaluation was changed in between) are left out.
    """
    start = cell.warm_start.snapshots if cell.warm_start is not None else []
    first = next((seed for seed in cell.seeds if seed.snapshots), None)
    if not start or first is None:
        return None
    taken = first.snapshots
    steps = [0, *(item.step for item in taken)]
    means = [_mean_reward(first.metrics, low, high) for low, high in itertools.pairwise(steps)]
    best = taken[max(range(len(taken)), key=lambda index: means[index])]
    last = taken[-1]
    shown = [("start", start[0]), ("best", best), ("last", last)]
    if best is last:
        shown = [("start", start[0]), ("best and last", last)]
    tasks = _by_task(shown)
    return {"seed": first.seed, "tasks": tasks} if tasks else None


def _by_task(shown: list[tuple[str, SnapshotRecord]]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for when, item in shown:
        for row in item.rows:
            task = {"task": row["task_id"], "instruction": row["instruction"], "plans": []}
            found.setdefault(row["task_id"], task)["plans"].append(
                {"when": when, "step": item.step, **{name: row[name] for name in (*_FIELDS, "film")}}
            )
    return [task for task in found.values() if len(task["plans"]) == len(shown)]


def _mean_reward(metrics: list[dict[str, Any]], low: int, high: int) -> float:
    """Mean training reward of steps low..high - 1; -inf where none is finite."""
    values = [row["reward"] for row in metrics if low <= row["step"] < high and "reward" in row]
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return sum(finite) / len(finite) if finite else -math.inf
