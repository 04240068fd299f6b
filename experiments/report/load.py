"""What lies in a run folder, read once: configuration, evaluated rollouts, and metrics and state of every seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dllm_rl.errors import ConfigError
from dllm_rl.jsonl import COMMITS_FILE, METRICS_FILE, read_rows
from experiments.results import SCHEMA, grid_of
from experiments.run_folder import WAYPOINTS_FOLDER, State, Status, read_json, read_status, status_of, warm_start_status
from experiments.stats import CellInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedRun:
    """One seed of a cell: rows of its metrics, the commit orders and waypoints it kept, and its state.

    versions: of what made its evaluation, by package; empty where there is none, or it is not known.
    """

    seed: int
    metrics: list[dict[str, Any]]
    commits: list[dict[str, Any]]
    status: Status
    waypoints: list[dict[str, Any]]
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRun:
    """One cell with its seeds, in the order of the configuration. warm_state: of its policy's warm start."""

    id: str
    policy: str
    objective: str
    role: Any
    seeds: tuple[SeedRun, ...]
    warm_state: State

    def info(self, num_collapsed: int) -> CellInfo:
        """What the statistics need to know."""
        return CellInfo(
            id=self.id,
            policy=self.policy,
            objective=self.objective,
            role=self.role,
            seeds=tuple(run.seed for run in self.seeds),
            num_collapsed=num_collapsed,
            num_stopped=sum(run.status.label == "stopped" for run in self.seeds),
            owed_seeds=tuple(run.seed for run in self.seeds if run.status.state != "failed"),
            is_warm_start_owed=self.warm_state != "failed",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A whole run folder. warm_start_seconds: wall time of all warm-start evaluations. warm_*: by policy."""

    config: dict[str, Any]
    results: pa.Table
    cells: tuple[CellRun, ...]
    warm_start_seconds: float
    warm_waypoints: dict[str, list[dict[str, Any]]]
    warm_versions: dict[str, dict[str, str]]


def load_run(folder: Path) -> Run:
    """Read a run folder; what is not there yet (a running grid) is empty."""
    path = folder / "config.json"
    if not path.is_file():
        raise ConfigError(f"'{folder}' is no run folder: it has no config.json. Start one with `dllm-rl grid`.")
    config = read_json(path)
    results = folder / "results.parquet"
    # Rows of another grid lie there while somebody begins this one, or where two share a folder.
    warm = config.get("warm_starts", {})
    states: dict[str, State] = {policy: warm_start_status(folder / place).state for policy, place in warm.items()}
    is_own = results.is_file() and grid_of(results) in ("", config["digest"])
    return Run(
        config=config,
        results=pq.read_table(results, schema=SCHEMA) if is_own else SCHEMA.empty_table(),
        cells=tuple(_load_cell(folder, cell, config["seeds"], states) for cell in config["cells"]),
        warm_start_seconds=sum(read_status(path.parent).seconds for path in folder.glob("warmstart/*/status.json")),
        warm_waypoints={policy: _load_waypoints(folder, place) for policy, place in warm.items()},
        warm_versions={
            policy: _load_versions(folder / place) if states[policy] == "done" else {} for policy, place in warm.items()
        },
    )


def _load_cell(folder: Path, cell: dict[str, Any], seeds: list[int], warm_states: dict[str, State]) -> CellRun:
    runs = []
    for seed in seeds:
        place = folder / cell["folder"] / f"seed{seed}"
        metrics, commits = read_rows(place / METRICS_FILE), read_rows(place / COMMITS_FILE)
        status = status_of(place, cell["digest"]) if cell.get("digest") else read_status(place)
        runs.append(
            SeedRun(
                seed=seed,
                metrics=metrics,
                commits=commits,
                status=status,
                waypoints=_load_waypoints(folder, f"{cell['folder']}/seed{seed}"),
                versions=_load_versions(place, cell.get("digest")) if status.state == "done" else {},
            )
        )
    return CellRun(
        id=cell["id"],
        policy=cell["policy"],
        objective=cell["objective"],
        role=cell["role"],
        seeds=tuple(runs),
        warm_state=warm_states.get(cell["policy"], "owed"),
    )


def _load_versions(place: Path, digest: str | None = None) -> dict[str, str]:
    """What made a unit, by its cell.json; empty where that tells of another evaluation than the one with `digest`."""
    path = place / "cell.json"
    settings = read_json(path) if path.is_file() else {}
    return settings.get("versions", {}) if digest in (None, settings.get("digest")) else {}


def _load_waypoints(root: Path, place: str) -> list[dict[str, Any]]:
    """Waypoints of one unit by step, with the paths of their films from the run folder, where the page lies."""
    found = [read_json(path) for path in (root / place / WAYPOINTS_FOLDER).glob("step*.json")]
    found.sort(key=lambda item: item["step"])
    for item in found:
        for row in item["rows"]:
            row["film"] = f"{place}/{row['film']}"
    return found
