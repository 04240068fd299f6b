"""What only large numbers show: faults on undisturbed sites, and both ends of the reward on every kind of form."""

from __future__ import annotations

import time
from typing import get_args

import pytest

from dllm_rl.records.tasks import SPLITS
from dllm_rl.session import Session
from harness.browser import Isolation
from harness.environments import FormEnvironment, FormSettings
from harness.execute import ExecutorName
from harness.rewards import Success
from tests.harness.oracle import prove

pytestmark = [pytest.mark.soak, pytest.mark.timeout(14400)]


@pytest.mark.parametrize("executor", get_args(ExecutorName))
def test_oracle_is_one_and_empty_nought_on_a_thousand_tasks(executor: ExecutorName) -> None:
    settings = FormSettings(counts=dict.fromkeys(SPLITS, 256), shares_identical=False)
    with Session(FormEnvironment(settings)) as session:
        proofs = prove(session, isolation="page", executor=executor)
    assert len(proofs) >= 1000
    assert [proof.task.id for proof in proofs if not proof.holds] == []


def test_one_in_a_thousand_clean_rollouts_at_most_is_lost() -> None:
    modes = get_args(Isolation)
    settings = FormSettings(counts={"train": 100}, shares_identical=False)
    num_rollouts = num_lost = num_repeated = 0
    started = time.monotonic()
    with Session(FormEnvironment(settings)) as session:
        pairs = [(task, session.gold_plan(task)) for task in session.tasks("train")]
        for turn in range(100):
            for outcome in session.run_many(pairs, isolation=modes[turn % len(modes)]):
                num_rollouts += 1
                num_lost += not outcome.is_valid
                num_repeated += outcome.num_attempts > 1
                assert not outcome.is_valid or Success()(outcome) == 1.0
    print(f"{num_rollouts} rollouts, {num_lost} lost, {num_repeated} repeated, {time.monotonic() - started:.0f} s")
    assert num_lost <= num_rollouts / 1000
