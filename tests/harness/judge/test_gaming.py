"""Plans that did not do the task cannot earn what doing it earns."""

from __future__ import annotations

import pytest

from benchmarks.gaming_audit import gaming_plans
from dllm_rl import registry
from dllm_rl.reward import OutcomeReward
from dllm_rl.session import Session
from harness.environments import FormEnvironment
from harness.rewards import Success

UNREAD = ("submit only", "submit five times")


@pytest.mark.browser
def test_no_reward_is_earned_without_the_task(session: Session[FormEnvironment]) -> None:
    tasks = session.tasks("val")[:5]
    gold = {task.id: session.gold_plan(task) for task in tasks}
    plans = [
        (name, task, plan)
        for task, page in zip(tasks, session.observe_many(tasks), strict=True)
        for name, plan in gaming_plans(task, page, gold[task.id]).items()
    ]
    outcomes = session.run_many([(task, plan) for _, task, plan in plans])
    for (name, task, plan), outcome in zip(plans, outcomes, strict=True):
        truthful = [(name, cls) for name, cls in registry.items("reward") if issubclass(cls, OutcomeReward)]
        rewards = {name: cls()(outcome) for name, cls in truthful}
        if name in UNREAD:
            assert set(rewards.values()) == {0.0}, (name, task.id, plan)
        if name == "everything right, submit twice":
            assert Success()(outcome) == 1.0
            assert rewards["shaped"] == rewards["tree"] == pytest.approx(0.9)
        elif name == "everything right and whatever else there is":
            # What is added may happen to be what stood there anyway.
            assert (rewards["shaped"] == 1.0) == (rewards["tree"] == 1.0) == (Success()(outcome) == 1.0)
        elif name != "everything right but one field":
            assert Success()(outcome) == 0.0, (name, task.id, plan)
            assert rewards["shaped"] < 1.0
