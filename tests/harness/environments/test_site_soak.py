"""Thousands of rollouts on a site of one's own in one process: memory, open contexts and processes stay flat."""

from __future__ import annotations

import gc
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from dllm_rl.records.tasks import Task
from dllm_rl.session import Session
from harness.environments import SiteEnvironment, SiteSettings
from tests.harness.environments.test_site import SERVER, tasks_file
from tests.soak_sizes import soak_size

pytestmark = [pytest.mark.soak, pytest.mark.browser, pytest.mark.timeout(14400)]
MEGABYTE = 2**20
NUM_ROUNDS = 10
# By then each tab has served as many rollouts as it may, and was replaced.
WARM = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a process holds after so many rollouts: megabytes of its own, contexts, processes, rollouts kept."""

    num_rollouts: int
    megabytes: float
    num_contexts: int
    num_processes: int
    num_kept: int
    seconds: float


def state_of(site: Session[SiteEnvironment], num_rollouts: int, seconds: float) -> State:
    gc.collect()
    own, environment = psutil.Process(), site.environment
    return State(
        num_rollouts=num_rollouts,
        megabytes=round(own.memory_info().rss / MEGABYTE, 1),
        num_contexts=environment.pool.num_contexts,
        num_processes=len(own.children(recursive=True)),
        num_kept=len(environment.proxy._logs),
        seconds=round(seconds, 1),
    )


def states(folder: Path, num_rounds: int, num_each: int, isolation: str) -> list[State]:
    """Gold plans and plans with a line less, round after round."""
    file = tasks_file(folder, {"values": {"Your name": "Ann"}}, {"values": {"Your name": "Bo"}})
    found, started = [], time.monotonic()
    with Session(SiteEnvironment(SiteSettings(start=f"{SERVER} {folder}/taken", tasks=file))) as site:
        tasks: list[Task] = list(site.tasks("test"))
        plans = [site.gold_plan(task) for task in tasks]
        spoilt = [plan.partition("\n")[2] for plan in plans]
        pairs = [*zip(tasks, plans, strict=True), *zip(tasks, spoilt, strict=True)]
        for number in range(1, num_rounds + 1):
            outcomes = site.run_many(pairs * (num_each // len(pairs)), executor="fast", isolation=isolation)
            assert [item.is_success for item in outcomes] == [True, True, False, False] * (num_each // len(pairs))
            found.append(state_of(site, number * num_each, time.monotonic() - started))
            print(found[-1], file=sys.stderr, flush=True)
    return found


def test_five_thousand_rollouts_leave_nothing_behind(tmp_path: Path) -> None:
    num_each = soak_size("ROLLOUTS", 5000) // NUM_ROUNDS
    found = states(tmp_path, num_rounds=NUM_ROUNDS, num_each=num_each, isolation="page")
    first, last = next(state for state in found if state.num_rollouts >= WARM), found[-1]
    assert last.num_rollouts > first.num_rollouts, f"a soak takes more than {WARM} rollouts"
    assert last.num_kept == 0
    assert last.num_contexts <= first.num_contexts + 1
    assert last.num_processes <= first.num_processes + 2
    assert last.megabytes < first.megabytes + 20
