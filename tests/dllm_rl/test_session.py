"""One blocking session for every environment: defaults, order, cancellation, and that it opens again after `close`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from dllm_rl.environment import Environment, Unsolved
from dllm_rl.errors import ConfigError
from dllm_rl.records.tasks import Fault, FieldResult, Observation, Outcome, Task
from dllm_rl.session import Session

GOLD = {"train/0": "a\nb", "train/1": "c", "train/2": "d"}


class Letters(Environment):
    """Wants the gold plan, and nothing beside what the contract asks for. broken: tasks that it cannot run."""

    splits = ("train", "val")

    def __init__(self) -> None:
        self.broken: frozenset[str] = frozenset()
        self.num_open, self.num_running, self.most_running = 0, 0, 0
        self.lock = asyncio.Lock()

    async def open(self) -> None:
        self.num_open += 1

    async def close(self) -> None:
        self.num_open -= 1

    def tasks(self, split: str) -> Sequence[Task]:
        return [Task(id=name, split=split, site=name, instruction="write", gold=()) for name in GOLD]

    async def observe(self, task: Task) -> Observation:
        return Observation(titles=(), controls=())

    async def run(self, task, plan, *, isolation=None, executor=None) -> Outcome:
        self.num_running += 1
        self.most_running = max(self.most_running, self.num_running)
        async with self.lock:  # Bound to the session's event loop once it was waited for.
            await asyncio.sleep(0.001)
        self.num_running -= 1
        if task.id in self.broken:
            return Outcome(task_id=task.id, fault=Fault.ENVIRONMENT, fault_reason="down")
        is_right = plan == GOLD[task.id]
        field = FieldResult(name="f", wanted=("",), server=(), dom=(), is_correct=is_right, is_default=False)
        return Outcome(task_id=task.id, is_submitted=True, fields=(field,))

    def gold_plan(self, task: Task, observation: Observation) -> str | None:
        return GOLD[task.id]


class WithoutGold(Letters):
    def gold_plan(self, task: Task, observation: Observation) -> None:
        return None


def test_outcomes_are_in_order_and_no_more_run_at_a_time_than_may() -> None:
    with Session(Letters()) as session:
        tasks = list(session.tasks("train")) * 20
        ended: list[int] = []
        outcomes = session.run_many(
            [(task, GOLD[task.id] if at % 2 else "") for at, task in enumerate(tasks)],
            on_result=lambda index, outcome: ended.append(index),
        )
        assert [outcome.is_success for outcome in outcomes] == [bool(at % 2) for at in range(60)]
        assert sorted(ended) == list(range(60))
        assert session.environment.most_running == session.environment.concurrency
    assert session.environment.num_open == 0


def test_a_session_opens_when_needed_and_again_after_it_was_closed() -> None:
    others = set(threading.enumerate())
    session = Session(Letters())
    tasks = session.tasks("train")
    assert session.environment.num_open == 0
    for _ in range(2):
        assert len(session.run_many([(task, "") for task in tasks])) == 3
        assert session.environment.num_open == 1
        session.close()
        session.close()
        assert session.environment.num_open == 0
    assert "environment" not in {thread.name for thread in set(threading.enumerate()) - others}


def test_by_default_a_plan_is_scored_by_the_lines_of_the_gold_plan() -> None:
    with Session(Letters()) as session:
        first = session.tasks("train")[0]
        assert session.score_many([(first, text) for text in ("a\nb", "b\na", "a", "a\nb\nc\nd", "")]) == pytest.approx(
            [1.0, 1.0, 2 / 3, 2 / 3, 0.0]
        )
    with Session(WithoutGold()) as session, pytest.raises(ConfigError, match="no gold plan for train/0"):
        session.score_many([(session.tasks("train")[0], "a")])


def test_a_self_check_names_what_its_gold_plan_does_not_solve() -> None:
    with Session(Letters()) as session:
        assert session.self_check(session.tasks("train")) == {}
        session.environment.broken = frozenset(["train/1"])
        assert session.self_check(session.tasks("train")) == {
            "train/1": Unsolved(reason="its gold plan could not be run: down", is_lost=True)
        }
    with Session(WithoutGold()) as session:
        assert session.self_check(session.tasks("train")) == {}
        with pytest.raises(ConfigError, match="no gold plan for train/0"):
            session.gold_plan(session.tasks("train")[0])


def test_a_split_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no split named 'vla'\. Did you mean 'val'"):
        Session(Letters()).tasks("vla")


def test_an_environment_that_does_not_open_leaves_nothing_and_may_be_tried_again() -> None:
    class Shy(Letters):
        is_ready = False

        async def open(self) -> None:
            await super().open()
            if not self.is_ready:
                raise ConfigError("not yet")

    session = Session(Shy())
    tasks = session.tasks("train")
    with pytest.raises(ConfigError, match="not yet"):
        session.observe_many(tasks)
    assert session.environment.num_open == 0
    session.environment.is_ready = True
    assert len(session.observe_many(tasks)) == 3
    session.close()
