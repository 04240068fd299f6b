"""MiniWoB++ tasks are solved by their oracle, and not by an empty or a wrong plan; the page's own reward decides."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("miniwob")

from dllm_rl.errors import ConfigError
from dllm_rl.records.tasks import Outcome
from dllm_rl.session import Session
from harness.environments import MiniWobEnvironment, MiniWobSettings
from harness.environments.miniwob_oracles import ORACLES
from harness.rewards import Success
from tests.soak_sizes import soak_size


def run(num_seeds: int, executor: str = "fast", isolation: str = "page") -> dict[str, list[Outcome]]:
    """The oracle on every task, and an empty plan on the first seed of each."""

    async def work() -> dict[str, list[Outcome]]:
        found: dict[str, list[Outcome]] = {}
        counts = {"test": num_seeds * len(ORACLES)}
        settings = MiniWobSettings(counts=counts, executor=executor, isolation=isolation)  # type: ignore[arg-type]
        async with MiniWobEnvironment(settings) as environment:
            tasks = environment.tasks("test")
            pages = await environment.observe_many(tasks)
            gold = [(task, environment.gold_plan(task, page)) for task, page in zip(tasks, pages, strict=True)]
            found["oracle"] = await environment.run_many(gold)
            found["empty"] = await environment.run_many([(task, "") for task in tasks[: len(ORACLES)]])
        return found

    return asyncio.run(work())


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize(("executor", "isolation"), [("fast", "page"), ("trusted", "context")])
def test_the_oracle_solves_every_task(executor: str, isolation: str) -> None:
    found = run(1, executor, isolation)
    assert len(ORACLES) >= 40
    failed = {item.task_id: (item.fault_reason, item.fields) for item in found["oracle"] if Success()(item) != 1.0}
    assert failed == {}
    assert [Success()(item) for item in found["empty"]] == [0.0] * len(ORACLES)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("executor", "isolation"), [("fast", "page"), ("trusted", "context")])
def test_the_oracle_solves_ninety_nine_percent_over_thirty_seeds(executor: str, isolation: str) -> None:
    outcomes = run(soak_size("SEEDS", 30), executor, isolation)["oracle"]
    solved = sum(Success()(item) == 1.0 for item in outcomes)
    failed = {item.task_id: item.notes() for item in outcomes if not item.is_success}
    print(f"{executor}, {isolation}: {solved} of {len(outcomes)} solved; not: {failed}", flush=True)
    assert solved >= 0.99 * len(outcomes)


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'enter-text'"):
        MiniWobSettings(names=("enter-txt",))
    with pytest.raises(ConfigError, match="names is empty"):
        MiniWobSettings(names=())


def test_no_episode_is_in_two_splits_and_every_split_has_every_task() -> None:
    environment = MiniWobEnvironment(MiniWobSettings(counts={"train": 60, "val": 60, "test": 60}))
    sites = [{task.site for task in environment.tasks(split)} for split in ("train", "val", "test")]
    assert [len(site) for site in sites] == [60] * 3 and not sites[0] & sites[1] and not sites[1] & sites[2]
    assert all({site.partition("?")[0] for site in split} == set(ORACLES) for split in sites)
    with pytest.raises(ConfigError, match="no split named 'test_layout'"):
        Session(environment).tasks("test_layout")


@pytest.mark.browser
def test_a_seed_names_the_episode_that_it_names_in_the_package_itself() -> None:
    """Its environment seeds with `Math.seedrandom(0)`, a number, which asks for this name."""
    with Session(MiniWobEnvironment(MiniWobSettings(names=("enter-text",), counts={"train": 1}))) as session:
        (page,) = session.observe_many(session.tasks("train"))
    assert "Agustina" in page.instruction
