"""What only large numbers show of episodes: both ends of the reward on a thousand tasks, and what faults change."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse

from dllm_rl.episodes import given, oracle, play
from dllm_rl.records.rollout import Completion
from dllm_rl.records.tasks import Ending, Fault
from dllm_rl.session import Session
from harness.environments import EpisodeEnvironment, EpisodeSettings
from harness.errands import KINDS, SPLITS, ErrandServer
from harness.rewards import Success

pytestmark = [pytest.mark.soak, pytest.mark.timeout(14400)]

TASKS_A_SPLIT, NUM_FAULTS = 340, 10_000


def test_the_oracle_is_one_and_doing_nothing_nought_on_a_thousand_tasks() -> None:
    settings = EpisodeSettings(counts=dict.fromkeys(SPLITS, TASKS_A_SPLIT), max_turns=40)
    with Session(EpisodeEnvironment(settings)) as session:
        tasks = [task for split in SPLITS for task in session.tasks(split)]
        solved = play(session, Success(), tasks, oracle(session))
        idle = play(session, Success(), tasks, given([Completion(plan="done")] * len(tasks)))
    assert len(tasks) == TASKS_A_SPLIT * len(SPLITS)
    assert {task.site.split(".")[1] for task in tasks} == set(KINDS)
    assert [rollout.task.id for rollout in solved if rollout.reward.value != 1.0] == []
    assert [rollout.task.id for rollout in idle if rollout.reward.value != 0.0] == []


def test_two_thousand_episodes_leave_memory_threads_and_contexts_as_they_were() -> None:
    """Resident memory of this process may grow by caches of errands, by a tenth at most after the first 400."""
    settings = EpisodeSettings(counts={"train": 400})
    sizes, num_threads = [], []
    with Session(EpisodeEnvironment(settings)) as session:
        for _ in range(5):
            play(session, Success(), session.tasks("train"), oracle(session))
            sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
            num_threads.append(threading.active_count())
            assert session.environment.server.num_visits == 0
            assert session.environment.pool.num_contexts == 0
    assert len(set(num_threads)) == 1
    assert sizes[-1] < 1.1 * sizes[0], sizes


class RandomlyFailing(ErrandServer):
    """Breaks a share of the requests."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share, self.chance, self.num_broken = share, random.Random(0), 0

    async def _page(self, request):
        if self.chance.random() < self.share:
            self.num_broken += 1
            return PlainTextResponse("oops", status_code=500)
        return await super()._page(request)


def test_ten_thousand_faults_excuse_no_episode_and_fail_none() -> None:
    """An episode comes to what it comes to undisturbed, or is lost; one that the agent fails is never excused."""
    environment = EpisodeEnvironment(EpisodeSettings(counts={"train": 340}, max_turns=40))
    server = environment.server = RandomlyFailing(0.08)
    found = Counter()
    with Session(environment) as session:
        tasks = session.tasks("train")
        while server.num_broken < NUM_FAULTS:
            for rollout in play(session, Success(), tasks, oracle(session)):
                found[rollout.outcome.ending] += 1
                assert rollout.reward.value == float(rollout.outcome.ending is not Ending.LOST), rollout.task.id
            wrong = play(session, Success(), tasks, given([Completion(plan="click p9.e9\n")] * len(tasks)))
            blamed = [item.outcome.fault is Fault.AGENT for item in wrong if item.outcome.ending is not Ending.LOST]
            assert all(blamed) and len(blamed) > len(wrong) / 2
        server.share = 0.0
        wrong = play(session, Success(), tasks, given([Completion(plan="click p9.e9\n")] * len(tasks)))
        assert {rollout.outcome.fault for rollout in wrong} == {Fault.AGENT}
    print(server.num_broken, found)
    assert found[Ending.FINISHED] > found[Ending.LOST]
