"""MiniWoB++ tasks are solved by their oracle, and not by an empty or a wrong plan; the page's own reward decides."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("miniwob")

from dllm_rl.errors import ConfigError
from dllm_rl.tasks import Outcome
from harness.adapters.miniwob import MiniWobEnvironment, miniwob_tasks, oracle_plan
from harness.adapters.miniwob_oracle import ORACLES
from harness.rewards import Success


def run(num_seeds: int, executor: str = "fast", isolation: str = "page") -> dict[str, list[Outcome]]:
    """The oracle on every task, and an empty plan on the first seed of each."""

    async def work() -> dict[str, list[Outcome]]:
        found: dict[str, list[Outcome]] = {"oracle": [], "empty": []}
        async with MiniWobEnvironment(executor=executor, isolation=isolation) as environment:  # type: ignore[arg-type]
            for task in miniwob_tasks(num_seeds=num_seeds):
                query, page = await environment.observe(task)
                found["oracle"].append(await environment.run(task, oracle_plan(task, query, page)))
            for task in miniwob_tasks():
                found["empty"].append(await environment.run(task, ""))
        return found

    return asyncio.run(work())


@pytest.mark.browser
@pytest.mark.parametrize(("executor", "isolation"), [("fast", "page"), ("trusted", "context")])
def test_the_oracle_solves_every_task(executor: str, isolation: str) -> None:
    found = run(1, executor, isolation)
    assert len(ORACLES) >= 15
    failed = {
        item.task_id: (item.fault_reason, item.fields) for item in found["oracle"] if Success()(item).value != 1.0
    }
    assert failed == {}
    assert [Success()(item).value for item in found["empty"]] == [0.0] * len(ORACLES)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_the_oracle_solves_ninety_five_percent_over_many_seeds() -> None:
    outcomes = run(20)["oracle"]
    solved = sum(Success()(item).value == 1.0 for item in outcomes)
    print(f"{solved} of {len(outcomes)} solved; not: {[item.task_id for item in outcomes if not item.is_success]}")
    assert solved >= 0.95 * len(outcomes)


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'enter-text'"):
        miniwob_tasks(["enter-txt"])
