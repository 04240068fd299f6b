"""Episodes in the browser: every task proves itself, turns stop where they must, faults are the environment's own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from starlette.responses import HTMLResponse, PlainTextResponse

from dllm_rl.episodes import Modes, given, oracle, play, played, recorded
from dllm_rl.errors import ConfigError
from dllm_rl.records.rollout import Completion
from dllm_rl.records.tasks import Ending, Fault, render_page
from dllm_rl.session import Session
from harness.environments import EpisodeEnvironment, EpisodeSettings
from harness.errands import KINDS, ErrandServer, Page, fits, make_errand, rehearse
from harness.execute import executors
from harness.execute.execution import Run
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


@pytest.mark.parametrize("executor", ["fast", "trusted"])
def test_back_to_the_answer_of_a_form_fails_and_the_episode_goes_on(session, proven, executor) -> None:
    """A browser would have to send the form again: it shows an error page instead, which nothing leads back from."""
    rollout = next(item for item in proven if item.task.site.startswith("errand.wizard."))
    first, *rest = [turn.completion.plan for turn in rollout.turns]
    empty = first.splitlines()[-1]
    (again,) = play(
        session, Success(), [rollout.task], recorded([[empty, first, "back", *rest]]), Modes(executor=executor)
    )
    notes = [turn.outcome.actions[-1].note for turn in again.turns]
    assert notes[0].startswith("rejected") and notes[1].startswith("page: now 2")
    assert notes[2] == "no way back: the page before is the answer to a form that was sent"
    assert again.turns[2].observation == again.turns[3].observation == rollout.turns[1].observation
    assert (again.reward.value, again.outcome.num_attempts) == (1.0, 1)


def test_nothing_is_shown_before_it_stands_there(proven) -> None:
    """What only pages have that were not opened yet is in no earlier observation; a window shows a part of a page."""
    num_kept = 0
    for rollout in proven:
        errand, opened = make_errand(rollout.task.site), set()
        for turn in rollout.turns:
            opened.add(turn.observation.title)
            known = "\n".join(text for page in errand.pages if page.title in opened for text in texts_of(page))
            later = {text for page in errand.pages if page.title not in opened for text in texts_of(page)}
            hidden = {text for text in later if text not in known}
            shown = "\n".join(render_page(turn.observation))
            assert [text for text in hidden if text in shown] == [], rollout.task.id
            num_kept += len(hidden)
    assert num_kept > 200
    code = next(item for item in proven if item.task.site.startswith("errand.code."))
    ((secret,),) = [item.wanted for item in code.task.gold if item.name == "code"]
    first, *_, last = ["\n".join(render_page(turn.observation)) for turn in code.turns]
    assert secret in first and secret not in last
    listed = next(item for item in proven if item.task.site.startswith("errand.long_list."))
    assert listed.turns[0].observation.num_below > 0
    assert any(turn.observation.num_above > 0 for turn in listed.turns)


def texts_of(page: Page) -> set[str]:
    """All that can be read of a page, and the values that it asks for; short ones could stand anywhere."""
    found = {page.title, page.button, page.notice, *page.passages}
    found |= {text for link in page.links for text in (link.text, link.note)}
    found |= {text for item in page.entries for text in (item.label, *item.options, item.wanted, item.value) if text}
    return {text for text in found if len(text) > 3}


class OddServer(ErrandServer):
    """Serves one page instead of the errands' own. A request for `later` is answered once it is released."""

    def __init__(self, body):
        super().__init__()
        self.body, self.released = body, asyncio.Event()

    async def _page(self, request):
        if request.path_params["page_key"] == "later":
            await self.released.wait()
            return PlainTextResponse("now")
        return HTMLResponse(f"<title>Odd</title><h1>Odd</h1>{self.body}")


LEAVING = '<a href="http://203.0.113.7/">Elsewhere</a>'
# As long as the answer does not come, the page claims that no time passes, so that whoever waits for it waits on.
STALLING = """<button type="button" onclick="performance.now = () => 0; fetch('later')">Stall</button>"""


@pytest.mark.parametrize(
    ("body", "plan", "ending", "note"),
    [
        (LEAVING, "click p1.e1\nwait", Ending.LEFT, "leads out of the site"),
        (STALLING, "click p1.e1\nclick p1.e1\nwait", Ending.DEADLINE, "deadline passed"),
    ],
)
def test_a_page_that_leads_away_or_does_not_react_ends_an_episode(session, monkeypatch, body, plan, ending, note):
    environment, usual, server = session.environment, session.environment.server, OddServer(body)
    stop = Run._stop

    def releasing(run, line, note):
        """The page reacts again as soon as its deadline has passed, so that it can be looked at."""
        server.released.set()
        stop(run, line, note)

    monkeypatch.setattr(Run, "_stop", releasing)
    monkeypatch.setattr(executors, "PAGE_SECONDS", 0.3)
    session.wait_for(server.start())
    environment.server = server
    try:
        (rollout,) = play(session, Success(), [task_of(session, "wizard")], given([Completion(plan=plan)]))
    finally:
        environment.server = usual
        session.wait_for(server.stop())
    outcome = rollout.outcome
    assert (outcome.ending, outcome.fault, outcome.num_attempts) == (ending, Fault.AGENT, 1)
    *_, stopped, skipped = outcome.actions
    assert stopped.status == "failed" and note in stopped.note and skipped.status == "skipped"


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
        ({"difficulties": ()}, "1, 2, 3"),
        ({"max_turns": 0}, "max_turns is 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            EpisodeSettings(**settings)
