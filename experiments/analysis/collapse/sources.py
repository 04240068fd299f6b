"""Runs under a path: a run folder of ours with its cells and seeds, a log of another trainer, or a folder of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm_rl.errors import ConfigError
from dllm_rl.files import METRICS_FILE
from experiments.analysis.collapse.readers import EVENT_FILES, one_a_step, read_events, read_runs, what_is_read
from experiments.run.folder import STATUS_FILE, RunFolder
from experiments.run.status import read_status

# A file of one of these names holds the whole history of the folder that it lies in; the surest first.
_HISTORIES = (METRICS_FILE, "trainer_state.json", "logging.jsonl", "trainer_log.jsonl")
# Other files that may be logs.
_SUFFIXES = (".log", ".out", ".txt", ".jsonl", ".json", ".csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRun:
    """Metrics of one run.

    Attributes:
        group: Runs that differ in their seed alone share it.
        seed: What tells them apart.
        is_over: False for a run of ours that still trains, or is to be continued.
    """

    group: str
    seed: str
    path: Path
    metrics: list[dict[str, Any]]
    is_over: bool = True

    @property
    def name(self) -> str:
        """Name for people."""
        return f"{self.group} {self.seed}".strip()


def find_runs(path: Path) -> list[LoggedRun]:
    """All runs under a path: one for a file or a seed's folder, one a seed for a cell, one a cell and seed for a grid.

    Of a folder of other trainers' logs, one for each log, or for each output folder with its newest checkpoint. Raises
    ConfigError where nothing there can be read.
    """
    if path.is_dir():
        found = list(_grid_runs(path) if _is_grid(path) else _seeds(path, path.name)) or list(_foreign(path, path))
        if not found:
            raise ConfigError(
                f"'{path}' holds no metrics: neither seeds or cells that began, nor a training log. "
                f"Give a run folder, a cell, a seed, or a log.\n{what_is_read()}"
            )
        return found
    if not path.is_file():
        raise ConfigError(f"no file or folder '{path}'. Give a run's folder or its log.\n{what_is_read()}")
    return list(_file_runs(path, path.name))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read one run's metrics, one row a step, from its log or its folder."""
    runs = find_runs(path)
    if len(runs) > 1:
        raise ConfigError(f"'{path}' holds {len(runs)} runs: {', '.join(run.name for run in runs)}. Give one of them.")
    return runs[0].metrics


def _is_grid(root: Path) -> bool:
    """Whether a folder is a run folder of ours; a model that was saved has a config.json, too."""
    path = root / "config.json"
    config = _json(path) if path.is_file() else None
    return isinstance(config, dict) and isinstance(config.get("cells"), list)


def _grid_runs(root: Path) -> Iterator[LoggedRun]:
    for unit in RunFolder(root).units():
        if unit.cell is not None and (unit.path / METRICS_FILE).is_file():
            yield _own(unit.path, unit.cell.id, f"seed {unit.key.seed}")


def _seeds(cell: Path, group: str) -> Iterator[LoggedRun]:
    for folder in sorted(cell.glob("seed*"), key=lambda folder: _number(folder.name)):
        if (folder / METRICS_FILE).is_file():
            yield _own(folder, group, folder.name.replace("seed", "seed ", 1))


def _own(folder: Path, group: str, seed: str) -> LoggedRun:
    """The run of a seed's folder."""
    metrics = _history(folder / METRICS_FILE)
    return LoggedRun(group=group, seed=seed, path=folder, metrics=metrics, is_over=_is_over(folder))


def _is_over(folder: Path) -> bool:
    """Whether training in a folder has ended; one without a status of ours holds what another trainer left."""
    return not (folder / STATUS_FILE).is_file() or read_status(folder).is_trained


def _foreign(folder: Path, root: Path) -> Iterator[LoggedRun]:
    """The run that a folder is, or all runs in it and below."""
    name = folder.name if folder == root else str(folder.relative_to(root))
    # TRL and transformers keep the state in each checkpoint; the newest holds the whole history.
    states = sorted(folder.glob("checkpoint-*/trainer_state.json"), key=lambda state: _number(state.parent.name))
    histories = [folder / history for history in _HISTORIES if (folder / history).is_file()] or states[-1:]
    if histories:
        path = folder if not states else histories[0]
        yield LoggedRun(group=name, seed="", path=path, metrics=_history(histories[0]), is_over=_is_over(folder))
        return
    if events := list(folder.glob(EVENT_FILES)):
        yield LoggedRun(group=name, seed="", path=folder, metrics=one_a_step(read_events(events)))
    for path in sorted(folder.iterdir()):
        # wandb links to its latest run, which is there under its own name.
        if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
            yield from _foreign(path, root)
        elif path.suffix in _SUFFIXES and path.is_file():
            yield from _readable(path, str(path.relative_to(root)))


def _readable(path: Path, name: str) -> Iterator[LoggedRun]:
    """Runs of a file that may be none: a folder of logs holds other things, too."""
    try:
        yield from _file_runs(path, name)
    except ConfigError:
        return


def _file_runs(path: Path, name: str) -> Iterator[LoggedRun]:
    for run, rows in read_runs(path).items():
        is_over = path.name != METRICS_FILE or _is_over(path.parent)
        yield LoggedRun(group=run or name, seed="", path=path, metrics=rows, is_over=is_over)


def _history(path: Path) -> list[dict[str, Any]]:
    """Metrics of a file that holds one run."""
    (rows,) = read_runs(path).values()
    return rows


def _number(name: str) -> int:
    digits = re.search(r"\d+", name)
    return int(digits[0]) if digits else 0


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{path}' is not valid JSON ({error}); was its writer stopped half way?") from None
