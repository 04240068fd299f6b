"""Evidence of recorded rollouts. Records hold what came of a plan and not its pages, so plans are run again."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from dllm_rl.episodes import play, recorded
from dllm_rl.errors import ConfigError
from dllm_rl.files import ROLLOUTS_FILE, read_rows
from dllm_rl.records.evidence import Evidence
from dllm_rl.records.evidence_file import Labelled, labelled
from dllm_rl.records.rollout import Rollout, split_turns
from dllm_rl.seeding import python_random
from dllm_rl.session import Session
from experiments.design.config import Component, build_reward

_LOGGER = logging.getLogger(__name__)
_COLUMNS = ("task_id", "plan", "cell", "seed")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedPlan:
    """A plan of a record.

    Attributes:
        source: The folder of the cell and seed that wrote it.
    """

    task_id: str
    plan: str
    source: str


def recorded_plans(run: Path, count: int, *, seed: int = 0) -> list[RecordedPlan]:
    """Draw different plans of a run, as evenly from its cells and seeds as they have them.

    Args:
        run: A folder with `rollouts.jsonl` files anywhere below, one such file, or a table that `eval --out` wrote.

    Raises ConfigError where there is none, or a file holds other things.
    """
    files = [run] if run.is_file() else sorted(run.rglob(ROLLOUTS_FILE))
    if not files:
        raise ConfigError(
            f"no {ROLLOUTS_FILE} under '{run}'. Give a grid's or a cell's folder, such a file, or a table of `eval`."
        )
    by_source = [plans for path in files for plans in _plans_of(path) if plans]
    if not by_source:
        raise ConfigError(
            f"'{run}' holds no plan: {_counted(files)} without a row that has task_id and plan. Give a grid's or a "
            f"cell's folder that has trained, one of its {ROLLOUTS_FILE}, or a table of `eval`."
        )
    for number, plans in enumerate(by_source):
        python_random(seed, "evidence", number).shuffle(plans)
    chosen: dict[tuple[str, str], RecordedPlan] = {}
    while any(by_source) and len(chosen) < count:
        for plans in by_source:
            if plans and len(chosen) < count:
                item = plans.pop()
                chosen.setdefault((item.task_id, item.plan), item)
    return list(chosen.values())


def _counted(files: Sequence[Path]) -> str:
    return "a file" if len(files) == 1 else f"{len(files)} files"


def _plans_of(path: Path) -> list[list[RecordedPlan]]:
    """The plans of a file by cell and seed."""
    if path.suffix != ".parquet":
        source = f"{path.parent.parent.name}/{path.parent.name}"
        rows = [row for row in read_rows(path) if isinstance(row, dict) and "plan" in row and "task_id" in row]
        return [[RecordedPlan(task_id=row["task_id"], plan=row["plan"], source=source) for row in rows]]
    _refuse_other_table(path)
    found: dict[tuple[str, int], list[RecordedPlan]] = {}
    for row in pq.read_table(path, columns=list(_COLUMNS)).to_pylist():
        item = RecordedPlan(task_id=row["task_id"], plan=row["plan"], source=row["cell"])
        found.setdefault((row["cell"], row["seed"]), []).append(item)
    return list(found.values())


def _refuse_other_table(path: Path) -> None:
    """Raise ConfigError where a table lacks what plans are recorded with."""
    try:
        names = pq.read_schema(path).names
    except pa.ArrowInvalid:
        raise ConfigError(f"'{path}' is not a table in Parquet. Give one that `eval --out` wrote.") from None
    if missing := [name for name in _COLUMNS if name not in names]:
        raise ConfigError(
            f"'{path}' has no column {', '.join(missing)}, and plans are recorded with {', '.join(_COLUMNS)}. Give a "
            "table that `eval --out` wrote, or the results.parquet of a run."
        )


def in_parts(items: Sequence[Item], size: int = 96) -> Iterator[Sequence[Item]]:
    """Successive parts of so many items, so that what plays them can say how far it is."""
    return (items[start : start + size] for start in range(0, len(items), size))


def evidence_of(
    session: Session, plans: Sequence[RecordedPlan], *, on_result: Callable[[int, int], None] | None = None
) -> list[Labelled]:
    """Play plans again and label what can be seen of them.

    Args:
        on_result: Gets (plans played, plans in all).

    Plans of tasks that the environment does not have are left out, and so is what it loses; a warning counts both.

    Raises ConfigError where none is left.
    """
    splits = {item.task_id.split("/")[0] for item in plans} & set(session.environment.splits)
    tasks = {task.id: task for split in splits for task in session.tasks(split)}
    known = [item for item in plans if item.task_id in tasks]
    truth = build_reward(Component(name="outcome"))
    rollouts: list[Rollout] = []
    for part in in_parts(known):
        turns = [split_turns(item.plan) if session.is_episodic else [item.plan] for item in part]
        rollouts += play(session, truth, [tasks[item.task_id] for item in part], recorded(turns))
        if on_result is not None:
            on_result(len(rollouts), len(known))
    kept = [
        labelled(Evidence.of(rollout.task, rollout.turns, rollout.outcome), source=item.source)
        for item, rollout in zip(known, rollouts, strict=True)
        if rollout.outcome.is_valid
    ]
    if len(kept) < len(plans):
        reasons = Counter(rollout.outcome.fault_reason for rollout in rollouts if not rollout.outcome.is_valid)
        _tell_left_out(len(plans), len(plans) - len(known), reasons, is_any_left=bool(kept))
    return kept


def _tell_left_out(num_plans: int, num_unknown: int, reasons: Counter[str], *, is_any_left: bool) -> None:
    """Warn of plans that give no evidence; raise where none does."""
    parts = [f"{num_unknown} of tasks that the environment does not have"] if num_unknown else []
    parts += [f"{count} lost ({reason})" for reason, count in reasons.most_common()]
    message = f"{num_unknown + reasons.total()} of {num_plans} plans give no evidence: {', '.join(parts)}."
    if not is_any_left:
        raise ConfigError(f"{message} Name the environment that the plans were written for: --environment")
    _LOGGER.warning("%s", message)
