"""Episodes in the browser: every task proves itself, turns stop where they must, faults are the environment's own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from starlette.responses import PlainTextResponse

from dllm_rl.episodes import Modes, given, oracle, play, played, recorded
from dllm_rl.errors import ConfigError
from dllm_rl.records.rollout import Completion
from dllm_rl.records.tasks import Ending, Fault
from dllm_rl.session import Session
from harness.environments import EpisodeEnvironment, EpisodeSettings
from harness.errands import KINDS, ErrandServer, fits, make_errand, rehearse
from harness.rewards import Success

pytestmark = pytest.mark.browser
TASKS = len(KINDS)


@pytest.fixture(scope="module")
def session():
    with Session(EpisodeEnvironment(EpisodeSettings(counts={"train": TASKS}))) as opened:
        yield opened


@pytest.fixture(scope="module")
def proven(session):
    """An oracle's episode of every kind."""
    return play(session, Success(), session.tasks("train"), oracle(session))


def task_of(session, kind, number=0):
    return [task for task in session.tasks("train") if task.site.startswith(f"errand.{kind}.")][number]


def test_every_kind_is_solved_by_the_oracle_in_several_turns(proven) -> None:
    assert [rollout.task.id for rollout in proven if rollout.reward.value != 1.0] == []
    assert {rollout.task.site.split(".")[1] for rollout in proven} == set(KINDS)
    assert sum(len(rollout.turns) > 1 for rollout in proven) == len(proven)


@pytest.mark.parametrize("plan", ["done", "", 'done "x"'])
def test_doing_nothing_is_worth_nothing(session, plan) -> None:
    tasks = [task for at, task in enumerate(session.tasks("train")) if plan == "done" or at % 5 == 3]
    rollouts = play(session, Success(), tasks, given([Completion(plan=plan)] * len(tasks)))
    assert [rollout.reward.value for rollout in rollouts] == [0.0] * len(tasks)


def test_an_episode_played_again_turn_by_turn_comes_to_the_same(session, proven) -> None:
    for rollout in proven[::4]:
        outcome = session.wait_for(session.environment.run(rollout.task, rollout.plan))
        assert replace(outcome, seconds={}) == replace(rollout.outcome, seconds={})


def test_both_executors_see_the_same_pages(session, proven) -> None:
    chosen = [rollout for rollout in proven if rollout.task.site.split(".")[1] in ("notice", "code", "edit")]
    plans = [[turn.completion.plan for turn in rollout.turns] for rollout in chosen]
    again = play(session, Success(), [item.task for item in chosen], recorded(plans), Modes(executor="trusted"))
    for one, other in zip(chosen, again, strict=True):
        assert [turn.observation for turn in one.turns] == [turn.observation for turn in other.turns]
        assert one.outcome.actions == other.outcome.actions


def test_a_turn_stops_at_what_fails_and_where_the_page_changes(session) -> None:
    task = task_of(session, "wizard")

    def notes(*turns):
        (rollout,) = play(session, Success(), [task], recorded([turns]))
        return [[(action.status, action.note) for action in turn.outcome.actions] for turn in rollout.turns]

    (first,) = notes('note "x"\nfill p9.e9 "x"\nwait')
    assert [status for status, _ in first] == ["ok", "failed", "skipped"]
    (first,) = notes("wait\nwhat is this\nwait")
    assert [status for status, _ in first] == ["ok", "malformed", "skipped"]
    (first,) = notes("\n".join(["wait"] * 9))
    assert [status for status, _ in first] == ["ok"] * 8 + ["skipped"]
    assert first[-1][1] == "skipped (at most 8 actions a turn)"
    (first, second) = notes("back\nwait", "scroll down\nscroll up")
    assert first == [("failed", "no way back: this is the first page"), ("skipped", "skipped (plan stopped at line 1)")]
    assert second[0] == ("ok", "ok scroll down; the page ends here")


def test_back_leads_to_the_page_before_and_its_controls_keep_their_refs(session, proven) -> None:
    rollout = next(item for item in proven if item.task.site.startswith("errand.wizard."))
    first = rollout.turns[0].completion.plan
    plans = [[first, "back", "back"]]
    (again,) = play(session, Success(), [rollout.task], recorded(plans))
    assert again.turns[1].outcome.actions[0].note == f'page: now 1 "{again.turns[0].observation.title}"'
    before, after = again.turns[0].observation, again.turns[2].observation
    assert [item.ref for item in before.controls] == [item.ref for item in after.controls]


def test_nothing_is_shown_before_it_stands_there(proven) -> None:
    """A later page's controls are in no earlier observation, and what is in the window is all that is shown."""
    rollout = next(item for item in proven if item.task.site.startswith("errand.code."))
    assert [len(turn.observation.titles) for turn in rollout.turns] == sorted(
        len(turn.observation.titles) for turn in rollout.turns
    )
    assert all({c.page_number for c in t.observation.controls} == {len(t.observation.titles)} for t in rollout.turns)
    listed = next(item for item in proven if item.task.site.startswith("errand.long_list."))
    assert listed.turns[0].observation.num_below > 0
    assert any(turn.observation.num_above > 0 for turn in listed.turns)


def test_time_stands_still_unless_a_policy_waits(session) -> None:
    task = task_of(session, "queue")
    environment = session.environment

    async def titles():
        episode = environment.begin(task, Modes())
        try:
            reply, seen = await episode.start(), []
            while reply.observation.title != "Please wait":
                reply = await episode.step(environment.gold_turn(task, (), reply.observation))
            for plan in ('note "x"', "wait", "wait", "wait"):
                # As long as the page's own timer, and half as long again.
                await asyncio.sleep(4.5 if plan.startswith("note") else 0)
                reply = await episode.step(plan)
                seen.append(reply.observation.title)
            return seen
        finally:
            await episode.close()

    seen = session.wait_for(titles())
    assert seen[0] == "Please wait" and seen[-1] != "Please wait"


def test_unreadable_turns_and_turns_without_end_end_an_episode(session) -> None:
    task = task_of(session, "wizard")
    plans = [["nonsense"] * 9, ["wait"] * 30, ["nonsense", "nonsense", "wait", "nonsense", "done"]]
    rollouts = play(session, Success(), [task] * 3, recorded(plans))
    endings = [(rollout.outcome.ending, len(rollout.turns)) for rollout in rollouts]
    assert endings == [(Ending.UNREADABLE, 3), (Ending.TURNS, 16), (Ending.DONE, 5)]


class FailingServer(ErrandServer):
    """Answers 500 to the requests with these numbers."""

    def __init__(self, numbers=()):
        super().__init__()
        self.numbers, self.count = set(numbers), 0

    async def _page(self, request):
        self.count += 1
        if self.count in self.numbers:
            return PlainTextResponse("oops", status_code=500)
        return await super()._page(request)


def test_a_fault_of_the_site_costs_another_attempt_and_changes_nothing_else(session, proven) -> None:
    """One request after another is broken: each time the episode is run again and comes to the same, or is lost."""
    rollout = next(item for item in proven if item.task.site.startswith("errand.lookup."))
    environment, usual = session.environment, session.environment.server
    server = FailingServer()
    session.wait_for(server.start())
    environment.server = server
    found = Counter()
    try:
        for number in range(1, 9):
            server.numbers, server.count = {number}, 0
            (again,) = play(session, Success(), [rollout.task], oracle(session))
            found[again.outcome.ending] += 1
            if again.outcome.is_valid:
                assert again.reward.value == 1.0 and again.outcome.fault is Fault.NONE
                assert [t.observation for t in again.turns] == [t.observation for t in rollout.turns]
            else:
                assert again.outcome.ending is Ending.LOST and again.reward.value == 0.0
        assert found[Ending.FINISHED] >= 5 and server.num_visits == 0 and environment.pool.num_contexts == 0
        server.numbers = set(range(1, 10_000))
        (lost,) = play(session, Success(), [rollout.task], oracle(session))
        assert lost.outcome.ending is Ending.LOST and lost.outcome.num_attempts == 3 and lost.turns == ()
    finally:
        environment.server = usual
        session.wait_for(server.stop())


def test_a_browser_that_dies_in_the_middle_costs_another_attempt(session, proven) -> None:
    rollout = next(item for item in proven if item.task.site.startswith("errand.code."))
    environment = session.environment
    num_asked = 0

    def killing(turns, page):
        nonlocal num_asked
        num_asked += 1
        if num_asked == 3:
            os.kill(environment.pids[0], signal.SIGKILL)
        return environment.gold_turn(rollout.task, turns, page)

    outcome = session.wait_for(played(environment.begin(rollout.task, Modes()), killing))
    assert outcome.is_success and outcome.num_attempts > 1
    assert num_asked == len(rollout.turns), "a policy was asked twice"


def test_a_rehearsal_shows_and_answers_what_the_browser_does(session) -> None:
    """Of every kind that can be rehearsed: the same pages and the same notes, slips included."""
    tasks = [task for task in session.tasks("train") if fits(make_errand(task.site))]
    rehearsals = [rehearse(task, max_actions=8, chance=Random(at), detours=0.4) for at, task in enumerate(tasks)]
    assert sum(len(item.slips) for item in rehearsals) > 5
    plans = [[turn.completion.plan for turn in item.turns] for item in rehearsals]
    played_again = play(session, Success(), tasks, recorded(plans))
    for item, rollout in zip(rehearsals, played_again, strict=True):
        for mine, real in zip(item.turns, rollout.turns, strict=True):
            assert mine.observation == real.observation, rollout.task.id
            assert mine.outcome.actions == real.outcome.actions, rollout.task.id
        assert rollout.reward.value == 1.0


def test_settings_that_have_no_meaning_are_refused() -> None:
    for settings, message in (
        ({"isolation": "page"}, "context of its own"),
        ({"kinds": ("wizzard",)}, "wizard"),
        ({"kinds": ()}, "kinds is empty"),
        ({"difficulties": (4,)}, "1, 2, 3"),
        ({"max_turns": 0}, "max_turns is 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            EpisodeSettings(**settings)
