"""`dllm-rl replay`: run one recorded rollout again, in a window or with a trace, and compare it with its record."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from dllm_rl.episodes import TOO_LONG, Modes, play
from dllm_rl.episodes import recorded as recorded_turns
from dllm_rl.errors import ConfigError
from dllm_rl.files import ROLLOUTS_FILE, lines_of, read_text
from dllm_rl.records.rollout import Completion, Rollout, one_turn, rewarded, split_turns
from dllm_rl.records.tasks import Task
from dllm_rl.session import Session
from experiments.design.config import Component, build_environment, build_reward
from experiments.run.folder import RESULTS_FILE, RunFolder
from experiments.run.records import GridRecord
from experiments.run.results import TIMING_COLUMNS, settings_of
from harness.browser import BrowserPool, TraceRecorder, chromium
from harness.environments import BrowserEnvironment, FormEnvironment

DIFFERENT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One rollout as a file has it.

    Attributes:
        row: Its record.
        executor: What it ran under; None for what the environment's settings say.
        reward: The scheme's name.
    """

    row: dict[str, Any]
    executor: str | None
    environment: Component
    reward: Component


def replay_rollout(run: Path, rollout: str, *, out: Path, is_headless: bool) -> int:
    """Replay and print; 1 where the outcome is not the recorded one."""
    recorded = find_rollout(run, rollout)
    is_shown = chromium.can_show() and not is_headless
    replayed, files = _run(recorded, out, is_shown=is_shown)
    console = Console(highlight=False, markup=False)
    console.print(f"{replayed.task.id}\n{replayed.task.instruction}\n")
    for action in replayed.outcome.actions:
        console.print(f"{action.text}\n    {action.note}")
    differences = compare(recorded.row, replayed.to_row())
    console.print()
    for path in files:
        console.print(f"wrote {path}")
    if differences:
        console.print("the outcome is NOT the recorded one:")
        for name, (before, now) in differences.items():
            console.print(f"  {name}: was {before}, is {now}")
        return DIFFERENT
    console.print(f"the outcome is the recorded one: reward {recorded.row['reward']:g}, {replayed.outcome.notes()}")
    return 0


def compare(recorded: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What is recorded and what is now, for every column of the record that differs.

    Time has no part in it, nor has the number of tokens, since nobody writes here.
    """
    names = [name for name in now if name in recorded and name not in (*TIMING_COLUMNS, "num_tokens")]
    return {name: (recorded[name], now[name]) for name in names if recorded[name] != now[name]}


def find_rollout(run: Path, rollout: str) -> Recorded:
    """Read the record of one rollout. Raises ConfigError where there is none."""
    if run.suffix in (".parquet", ".jsonl"):
        config = _config_above(run)
        settings = _settings(config)
        if run.suffix == ".parquet":
            row = _table_row(run, rollout)
            if config is None:
                settings |= {key: Component(**stated) for key, stated in settings_of(run).items()}
            return Recorded(row=row, executor="trusted", **settings)
        return Recorded(row=_line(run, rollout), executor=None, **settings)
    folder = RunFolder.find(run)
    config = folder.config
    settings = _settings(config)
    if rollout.isdecimal():
        row = _table_row(folder.root / RESULTS_FILE, rollout)
        return Recorded(row=row, executor=config.evaluation.executor, **settings)
    cell, _, rest = rollout.partition("/")
    seed, _, number = rest.partition("/")
    found = folder.cell(cell)
    if found is None:
        raise ConfigError(
            f"'{rollout}' is not a rollout; expected a row number, or CELL/seedK/STEP.ROW with CELL one of "
            f"{', '.join(item.id for item in config.cells)}"
        )
    row = _line(folder.root / found.folder / seed / ROLLOUTS_FILE, number)
    return Recorded(row=row, executor=None, **settings)


def _config_above(path: Path) -> GridRecord | None:
    """What was resolved for the run that a file lies in; None for a file that lies elsewhere."""
    found = RunFolder.above(path)
    return None if found is None else found.config


def _settings(config: GridRecord | None) -> dict[str, Component]:
    """Environment and reward of a run; the defaults where nothing says otherwise."""
    standard = {"environment": "forms", "reward": "shaped"}
    if config is None:
        return {key: Component(name=name) for key, name in standard.items()}
    return {key: config.component(key, default=name) for key, name in standard.items()}


def _table_row(path: Path, number: str) -> dict[str, Any]:
    import pyarrow.parquet as pq
    from pyarrow import ArrowInvalid

    if not path.is_file():
        raise ConfigError(f"there is no {path}: nothing is finished yet, or the path is wrong")
    try:
        table = pq.read_table(path)
    except (ArrowInvalid, OSError) as error:
        raise ConfigError(f"{path} cannot be read as a table of results: {error}") from error
    if not number.isdecimal() or int(number) >= table.num_rows:
        raise ConfigError(f"'{number}' is not a row of {path}; expected 0 to {table.num_rows - 1}")
    return table.slice(int(number), 1).to_pylist()[0]


def _line(path: Path, number: str) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"there is no {path}")
    for line in lines_of(read_text(path)):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # The last line of a run that was killed may be torn.
        if f"{row.get('step')}.{row.get('row')}" == number and "plan" in row:
            return row
    raise ConfigError(f"'{number}' is not a rollout of {path}; expected STEP.ROW, such as 0.3")


def _run(recorded: Recorded, out: Path, *, is_shown: bool) -> tuple[Rollout, list[Path]]:
    environment, recorder = build_environment(recorded.environment), TraceRecorder(folder=out, keeps_all=True)
    if isinstance(environment, BrowserEnvironment):
        environment.pool = BrowserPool(is_headful=is_shown)
    if isinstance(environment, FormEnvironment):
        environment.recorder = recorder
    task_id = recorded.row["task_id"]
    with Session(environment) as session:
        task = next((task for task in session.tasks(task_id.split("/")[0]) if task.id == task_id), None)
        if task is None:
            raise ConfigError(f"the task {task_id} is not in this version's sites, or the run used other task settings")
        rollout = (_episode if session.is_episodic else _whole_plan)(session, task, recorded)
    return rollout, [path for pair in recorder.written for path in pair]


def _episode(session: Session, task: Task, recorded: Recorded) -> Rollout:
    row = recorded.row
    turns = split_turns(row["plan"])[: row["num_turns"]]
    writer = recorded_turns([turns], TOO_LONG if row["ending"] == TOO_LONG.ending else None)
    (rollout,) = play(session, build_reward(recorded.reward), [task], writer, Modes(executor=recorded.executor))
    return rollout


def _whole_plan(session: Session, task: Task, recorded: Recorded) -> Rollout:
    plan, (page,) = recorded.row["plan"], session.observe_many([task])
    outcome = session.wait_for(session.environment.run(task, plan, executor=recorded.executor))
    (rollout,) = rewarded(build_reward(recorded.reward), [one_turn(task, page, Completion(plan=plan), outcome)])
    return rollout
