"""Evidence of recorded rollouts. Records hold what came of a plan and not its pages, so plans are run again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from dllm_rl.episodes import play, recorded
from dllm_rl.errors import ConfigError
from dllm_rl.files import ROLLOUTS_FILE
from dllm_rl.records.evidence import Evidence
from dllm_rl.records.evidence_file import Labelled, labelled
from dllm_rl.records.rollout import split_turns
from dllm_rl.seeding import python_random
from dllm_rl.session import Session
from experiments.design.config import Component, build_reward


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

    Raises ConfigError where there is none.
    """
    files = [run] if run.is_file() else sorted(run.rglob(ROLLOUTS_FILE))
    if not files:
        raise ConfigError(
            f"no {ROLLOUTS_FILE} under '{run}'. Give a grid's or a cell's folder, such a file, or a table of `eval`."
        )
    by_file = [_plans_of(path) for path in files]
    for number, plans in enumerate(by_file):
        python_random(seed, "evidence", number).shuffle(plans)
    chosen: dict[tuple[str, str], RecordedPlan] = {}
    while any(by_file) and len(chosen) < count:
        for plans in by_file:
            if plans and len(chosen) < count:
                item = plans.pop()
                chosen.setdefault((item.task_id, item.plan), item)
    return list(chosen.values())


def _plans_of(path: Path) -> list[RecordedPlan]:
    if path.suffix == ".parquet":
        rows = pq.read_table(path, columns=["task_id", "plan", "cell"]).to_pylist()
        return [RecordedPlan(task_id=row["task_id"], plan=row["plan"], source=row["cell"]) for row in rows]
    return [
        RecordedPlan(task_id=row["task_id"], plan=row["plan"], source=f"{path.parent.parent.name}/{path.parent.name}")
        for row in _rows(path)
    ]


def _rows(path: Path) -> Iterator[dict]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # The last line of a run that was killed may be torn.
        if "plan" in row:
            yield row


def evidence_of(session: Session, plans: Sequence[RecordedPlan]) -> list[Labelled]:
    """Play plans again and label what can be seen of them.

    What the environment loses is left out, and so are tasks that it no longer has.
    """
    splits = {item.task_id.split("/")[0] for item in plans}
    tasks = {task.id: task for split in splits for task in session.tasks(split)}
    known = [item for item in plans if item.task_id in tasks]
    turns = [split_turns(item.plan) if session.is_episodic else [item.plan] for item in known]
    truth = build_reward(Component(name="outcome"))
    rollouts = play(session, truth, [tasks[item.task_id] for item in known], recorded(turns))
    return [
        labelled(Evidence.of(rollout.task, rollout.turns, rollout.outcome), source=item.source)
        for item, rollout in zip(known, rollouts, strict=True)
        if rollout.outcome.is_valid
    ]
