"""An outcome that is given again is the one that running the plan again would give, and a lie is found out."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest

from dllm_rl.errors import HarnessError
from dllm_rl.records.plan import parse_plan
from dllm_rl.records.tasks import ActionResult, Fault, Outcome, Task
from dllm_rl.session import Session
from harness.environments import FormEnvironment, FormSettings
from harness.judge import Audit, Key, OutcomeCache, OutcomeStore
from tests.harness.corruption import corrupted

TASK = Task(id="t", split="train", site="s", instruction="", gold=())
GOOD = Outcome(task_id="t", is_submitted=True, seconds={"act": 1.0})
LOST = Outcome(task_id="t", fault=Fault.ENVIRONMENT)
LATE = Outcome(task_id="t", actions=(ActionResult(line=1, text="", status="failed", note="deadline passed: p1.e1"),))


def key(plan: str, *, executor: str = "fast", isolation: str = "page", browser: str = "1") -> Key:
    return Key(made_by=(browser,), task=TASK, plan=parse_plan(plan), executor=executor, isolation=isolation)


def play(cache: OutcomeCache, plans: list[str], results: list[Outcome]) -> list[Outcome]:
    left = iter(results)

    async def run() -> Outcome:
        await asyncio.sleep(0)
        return next(left)

    async def all_of_them() -> list[Outcome]:
        return list(await asyncio.gather(*(cache.get(key(plan), run) for plan in plans)))

    return asyncio.run(all_of_them())


def test_plans_that_read_alike_are_one() -> None:
    cache = OutcomeCache(Audit(every=1000, num_reused=1))
    outcomes = play(cache, ["click p1.e1", "click p1.e1  \r", " click p1.e1"], [GOOD])
    assert outcomes == [GOOD, reused(GOOD), reused(GOOD)]
    others = {"executor": "trusted"}, {"isolation": "arena"}, {"browser": "2"}
    keys = [key("click p1.e1"), key("\nclick p1.e1"), *(key("click p1.e1", **other) for other in others)]
    assert len({item.digest for item in keys}) == len(keys)


def reused(outcome: Outcome) -> Outcome:
    return replace(outcome, seconds={}, recheck="", is_reused=True)


@pytest.mark.parametrize("first", [LOST, LATE, replace(GOOD, recheck="different")])
def test_what_the_plan_did_not_decide_is_not_kept(first: Outcome) -> None:
    cache = OutcomeCache(Audit(every=1000, num_reused=1))
    assert play(cache, ["", "", ""], [first, GOOD]) == [first, GOOD, reused(GOOD)]


def test_audits_come_first_and_then_one_in_so_many() -> None:
    cache = OutcomeCache(Audit(every=3))
    play(cache, [""] * 8, [GOOD] * 4)
    assert (cache.audit.num_reused, cache.audit.num_executed) == (7, 3)


def test_a_difference_stops_the_unit_and_drops_what_was_kept(tmp_path: Path) -> None:
    cache = OutcomeCache(Audit(every=3), OutcomeStore(tmp_path / "outcomes.sqlite"))
    play(cache, ["click p1.e1"], [GOOD])
    with pytest.raises(HarnessError, match=r"two outcomes.*dropped"):
        play(cache, [""] * 2, [GOOD, replace(GOOD, is_submitted=False)])
    assert play(cache, ["click p1.e1"], [LOST]) == [LOST]


@pytest.mark.parametrize(
    "again", [replace(GOOD, recheck="different"), replace(GOOD, recheck="different", is_submitted=False), LATE]
)
def test_a_disagreement_that_an_audit_finds_is_given_and_nothing_is_kept(again: Outcome, tmp_path: Path) -> None:
    cache = OutcomeCache(Audit(every=3), OutcomeStore(tmp_path / "outcomes.sqlite"))
    play(cache, ["click p1.e1"], [GOOD])
    assert play(cache, [""] * 2, [GOOD, again]) == [GOOD, replace(again, recheck="different")]
    assert play(cache, ["", "click p1.e1"], [LOST]) == [LOST, reused(GOOD)]


def test_a_rerun_that_the_environment_lost_shows_nothing() -> None:
    assert play(OutcomeCache(Audit(every=3)), [""] * 2, [GOOD, LOST]) == [GOOD, reused(GOOD)]


def test_a_recheck_counts_once() -> None:
    cache = OutcomeCache(Audit(every=1000, num_reused=1))
    outcomes = play(cache, [""] * 3, [replace(GOOD, recheck="same")])
    assert [outcome.recheck for outcome in outcomes] == ["same", "", ""]


@pytest.mark.browser
def test_cached_outcomes_equal_executed_ones(session: Session[FormEnvironment], tmp_path: Path) -> None:
    """Every reuse is audited here, so that an outcome which differs from its execution raises."""
    settings = FormSettings(
        counts=session.environment.settings.counts,
        cache_dir=session.environment.settings.cache_dir,
        caches_outcomes=True,
        audit_every=1,
    )
    rng, pairs = random.Random(3), []
    for task, page in zip(session.tasks("val"), session.observe_many(session.tasks("val")), strict=True):
        pairs.append((task, corrupted(session.gold_plan(task), page, rng)))

    async def twice() -> tuple[list[Outcome], list[Outcome], int]:
        async with FormEnvironment(settings) as environment:
            first = await environment.run_many(pairs)
            assert environment.audit.num_reused == 0
            return first, await environment.run_many(pairs), environment.audit.num_executed

    first, second, num_executed = asyncio.run(twice())
    assert num_executed == len(pairs)
    assert second == [reused(outcome) for outcome in first]
