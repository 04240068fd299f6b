"""The same three tasks along a run: which steps, which tasks, what is written, and what the report makes of it."""

from __future__ import annotations

import json

import pytest

from dllm_rl.training.engine import RolloutEngine, evaluate
from experiments.design.config import Component, build_reward, build_sampler, build_session
from experiments.report.load import CellRun, UnitRun, snapshots_of
from experiments.run.records import CellRecord, SnapshotRecord
from experiments.run.snapshots import has_snapshot, is_snapshot, shown_tasks, take_snapshot
from experiments.run.status import Status
from tests.tiny_policies import make_tiny_policy


@pytest.mark.parametrize(
    ("num_steps", "wanted"), [(50, [13, 25, 38, 50]), (4, [1, 2, 3, 4]), (2, [1, 2]), (1, [1]), (45, [12, 23, 34, 45])]
)
def test_one_after_each_quarter_and_always_one_at_the_end(num_steps, wanted):
    assert [step for step in range(num_steps + 1) if is_snapshot(step, num_steps)] == wanted


@pytest.mark.parametrize(("num_tasks", "wanted"), [(9, [1, 4, 7]), (60, [10, 30, 50]), (2, [0, 1]), (0, [])])
def test_shown_tasks_are_spread_and_fewer_where_there_are_fewer(num_tasks, wanted):
    assert shown_tasks(num_tasks) == wanted


def test_a_snapshot_taken_twice_is_the_same_and_has_a_film_of_each_plan(tmp_path):
    policy = make_tiny_policy("masked")
    sampler = build_sampler(Component(name="low_confidence", options={"num_steps": 4}), temperature=1.0)
    reward = build_reward(Component(name="outcome"))
    assert not has_snapshot(tmp_path, 3)
    with build_session(Component(name="toy_copy")) as session:
        every = session.tasks("val")[:9]
        tasks = [every[index] for index in shown_tasks(len(every))]
        engine = RolloutEngine(policy=policy, sampler=sampler, environment=session, reward=reward)
        texts = []
        for _ in range(2):
            take_snapshot(
                tmp_path,
                3,
                engine=engine,
                tasks=every,
                seed=0,
            )
            assert has_snapshot(tmp_path, 3)
            texts.append({path.name: path.read_text() for path in (tmp_path / "waypoints").iterdir()})
            (tmp_path / "waypoints" / ".step3.json.torn.tmp").write_text("left by a kill")
        final = evaluate(engine, every, num_samples=1, seed=0)
    written = texts[0]
    assert sorted(written) == ["step3-0.html", "step3-1.html", "step3-2.html", "step3.json"]
    assert {name: text for name, text in texts[1].items() if name != "step3.json"} == {
        name: text for name, text in written.items() if name != "step3.json"
    }
    rows = [json.loads(text["step3.json"])["rows"] for text in texts]
    greedy = {row["task_id"]: row["plan"] for row in final if row["mode"] == "greedy"}
    assert [row["plan"] for row in rows[0]] == [greedy[task.id] for task in tasks]
    assert [row["plan"] for row in rows[0]] == [row["plan"] for row in rows[1]]
    assert [row["task_id"] for row in rows[0]] == [task.id for task in tasks]
    for task, row in zip(tasks, rows[0], strict=True):
        film = (tmp_path / row["film"]).read_text()
        assert task.id in film
        assert json.dumps(row["plan"])[1:-1].replace("<", "\\u003c") in film


def snapshot(step: int, plan: str, *, place: str, tasks=("a", "b")) -> SnapshotRecord:
    shown = {"success": False, "submitted": True, "reward": 0.0, "field_accuracy": 0.5, "near_miss": False}
    shown |= {"notes": "", "fault": "none"}
    rows = [
        {"task_id": task, "instruction": f"do {task}", "plan": plan, "film": f"{place}/step{step}.html", **shown}
        for task in tasks
    ]
    return SnapshotRecord(step=step, rows=tuple(rows))


def run_of(rewards, taken, *, start=True) -> CellRun:
    metrics = [{"step": step, "reward": reward} for step, reward in enumerate(rewards)]
    record = CellRecord(id="masked-grpo", policy="masked", objective="grpo", role="cell", folder="cells/a", digest="0")
    warm = unit(None, [], [snapshot(0, "start", place="w")] if start else [])
    return CellRun(record=record, seeds=(unit(4, metrics, taken),), warm_start=warm, is_reward_comparable=True)


def unit(seed: int | None, metrics, taken) -> UnitRun:
    status = Status(state="done")
    return UnitRun(name="", seed=seed, metrics=metrics, commits=[], status=status, snapshots=taken, versions={})


def test_best_is_where_the_training_reward_was_highest_and_tasks_stay_the_same():
    taken = [snapshot(2, "two", place="c"), snapshot(4, "four", place="c"), snapshot(6, "six", place="c")]
    found = snapshots_of(run_of([0.1, 0.1, 0.9, 0.8, 0.2, 0.1], taken))
    assert found is not None
    assert found["seed"] == 4
    assert [[(plan["when"], plan["step"], plan["plan"]) for plan in task["plans"]] for task in found["tasks"]] == [
        [("start", 0, "start"), ("best", 4, "four"), ("last", 6, "six")]
    ] * 2
    assert [task["task"] for task in found["tasks"]] == ["a", "b"]
    assert found["tasks"][0]["plans"][1]["film"] == "c/step4.html"


def test_a_run_that_rose_to_its_end_shows_two_plans_a_task():
    taken = [snapshot(2, "two", place="c"), snapshot(4, "four", place="c")]
    found = snapshots_of(run_of([0.1, 0.1, 0.5, float("nan")], taken))
    assert found is not None
    assert [plan["when"] for plan in found["tasks"][0]["plans"]] == ["start", "best and last"]


def test_runs_of_before_and_other_tasks_are_left_out():
    assert snapshots_of(run_of([0.1], [])) is None
    assert snapshots_of(run_of([0.1], [snapshot(1, "one", place="c")], start=False)) is None
    found = snapshots_of(run_of([0.1], [snapshot(1, "one", place="c", tasks=("b", "z"))]))
    assert found is not None
    assert [task["task"] for task in found["tasks"]] == ["b"]
    assert snapshots_of(run_of([0.1], [snapshot(1, "one", place="c", tasks=("y", "z"))])) is None
