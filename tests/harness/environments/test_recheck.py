"""A sample of training's rollouts is run again as evaluation runs them, and what differs is counted."""

from __future__ import annotations

import random
from typing import Any

import pytest

from dllm_rl.session import Session
from harness.environments import FormEnvironment, FormSettings
from tests.harness.corruption import corrupted

pytestmark = pytest.mark.browser


def settings_of(session: Session[FormEnvironment], **more: Any) -> FormSettings:
    return FormSettings(
        counts=session.environment.settings.counts, cache_dir=session.environment.settings.cache_dir, **more
    )


def test_what_is_run_again_came_to_the_same(session: Session[FormEnvironment]) -> None:
    rng, pairs = random.Random(5), []
    for task, page in zip(session.tasks("val")[:4], session.observe_many(session.tasks("val")[:4]), strict=True):
        pairs += [(task, session.gold_plan(task)), (task, corrupted(session.gold_plan(task), page, rng))]
    with Session(FormEnvironment(settings_of(session, recheck_every=1, isolation="arena"))) as rechecking:
        assert {outcome.recheck for outcome in rechecking.run_many(pairs)} == {"same"}
        # A call that says how to run is evaluation's, and is its own judge.
        assert {outcome.recheck for outcome in rechecking.run_many(pairs[:2], executor="fast")} == {""}


def test_a_difference_is_counted(session: Session[FormEnvironment], monkeypatch: pytest.MonkeyPatch) -> None:
    (task, *_) = session.tasks("val")
    gold, run = session.gold_plan(task), FormEnvironment.run

    async def wrong(self: FormEnvironment, task: Any, plan: str, **how: Any) -> Any:
        return await run(self, task, "" if how["executor"] == "trusted" else plan, **how)

    monkeypatch.setattr(FormEnvironment, "run", wrong)
    with Session(FormEnvironment(settings_of(session, recheck_every=1))) as rechecking:
        (outcome,) = rechecking.run_many([(task, gold)])
    assert (outcome.recheck, outcome.is_success) == ("different", True)


def test_the_sample_is_decided_by_task_and_plan(session: Session[FormEnvironment]) -> None:
    chosen = [FormSettings(recheck_every=50).is_rechecked("t", str(at)) for at in range(5000)]
    assert 50 < sum(chosen) < 150
    assert chosen == [FormSettings(recheck_every=50).is_rechecked("t", str(at)) for at in range(5000)]
    assert not FormSettings(recheck_every=0).is_rechecked("t", "")
