"""All isolation modes give one outcome, and nothing of one rollout can be seen by the next."""

from __future__ import annotations

import itertools
import random
from typing import Any, get_args

import pytest

from dllm_rl.records.tasks import Outcome
from dllm_rl.session import Session
from harness.browser import EnvironmentFaultError, Isolation
from harness.environments import FormEnvironment
from harness.execute import ExecutorName
from tests.harness.conftest import Lab
from tests.harness.corruption import corrupted

pytestmark = pytest.mark.browser
MODES: tuple[Isolation, ...] = get_args(Isolation)
EXECUTORS: tuple[ExecutorName, ...] = get_args(ExecutorName)

# Says what it finds of an earlier visit in every store that a page has, then writes into each.
LEAKY = """<h1>S</h1><form><input name=seen aria-label=Seen></form><script>
const field = document.querySelector('input');
field.value = [document.cookie, localStorage.mark ?? '', sessionStorage.mark ?? '', window.name, document.referrer,
  history.state ?? '', history.length, performance.getEntriesByName('mark').length].join('|');
document.cookie = 'mark=1; max-age=999'; window.name = 'mark'; history.replaceState('mark', '');
performance.mark('mark');
setInterval(() => { document.cookie = 'late=1'; localStorage.late = sessionStorage.late = '1'; }, 1);
localStorage.mark = sessionStorage.mark = '1';
</script>"""
DATA_BASE = """<script>const request = indexedDB.open('mark');
indexedDB.databases().then((all) => { field.value += all.length; document.title = 'asked'; });</script>"""

SHOWN = "() => [document.querySelector('h1').getClientRects().length > 0, document.activeElement.tagName]"


async def what_it_sees(lab: Lab, isolation: Isolation) -> str:
    async with lab.pool.tab(isolation) as tab:
        await tab.goto(lab.base_url)
        return (await tab.call("inventory", seconds=2))["controls"][0]["value"]


@pytest.mark.parametrize("isolation", ["context", "origin", "page"])
def test_a_page_finds_no_trace_of_an_earlier_rollout(lab: Lab, isolation: Isolation) -> None:
    lab.show(LEAKY)
    seen = [lab.run(what_it_sees(lab, isolation)) for _ in range(3)]
    assert seen == ["||||||2|0"] * 3


async def what_still_shows(lab: Lab) -> list[Any]:
    """Of a tab that waits for its next rollout, after a form that the browser itself refused."""
    async with lab.pool.tab("page") as tab:
        await tab.goto(lab.base_url)
        await tab.page.locator("button").click()
        before = await tab.page.evaluate(SHOWN)
    return [before, await tab.page.evaluate(SHOWN)]


def test_an_idle_tab_shows_nothing(lab: Lab) -> None:
    """The browser's message at the refused field would be painted, frame after frame, until the tab is used again."""
    lab.show("<h1>S</h1><form><input name=name aria-label=Name required><button>Send</button></form>")
    assert lab.run(what_still_shows(lab)) == [[True, "INPUT"], [False, "BODY"]]


def test_an_arena_counts_no_rollout_on_a_page_that_stores_something(lab: Lab) -> None:
    lab.show(LEAKY)
    with pytest.raises(EnvironmentFaultError, match="needs a tab"):
        lab.run(what_it_sees(lab, "arena"))
    lab.show(
        "<h1>S</h1><form><input name=seen aria-label=Seen></form><script>"
        "document.querySelector('input').value = [window.name, history.length, localStorage.length, document.cookie]"
        "</script>"
    )
    assert [lab.run(what_it_sees(lab, "arena")) for _ in range(2)] == [",2,0,", ",2,0,"]


def test_a_tab_with_a_data_base_is_thrown_away(lab: Lab) -> None:
    lab.show(LEAKY + DATA_BASE)

    async def opened_again() -> bool:
        tabs = []
        for _ in range(2):
            async with lab.pool.tab("page") as tab:
                tabs.append(tab)
                await tab.goto(lab.base_url)
                await tab.page.wait_for_function("document.title === 'asked'")
                assert (await tab.call("inventory", seconds=2))["controls"][0]["value"].endswith("|00")
        return tabs[0] is not tabs[1]

    assert lab.run(opened_again())


DIALOGS = """<h1>D</h1><form><button type=button onclick="alert('a');
this.form.out.value = confirm('b') + '' + prompt('c')">Ask</button><input name=out aria-label=Out></form>"""


def test_dialogs_are_answered_alike_and_stay_with_their_rollout(lab: Lab) -> None:
    lab.show(DIALOGS)

    async def answers(isolation: Isolation) -> tuple[Any, ...]:
        async with lab.pool.tab(isolation) as tab:
            await tab.goto(lab.base_url)
            before = list(tab.dialogs)
            await tab.call("perform", {"steps": [BUTTON], "pages": [PAGE]}, seconds=2)
            return before, tab.dialogs[:], (await tab.call("look", [PAGE], seconds=2))["values"]["out"]

    expected = ([], ["alert: a", "confirm: b", "prompt: c"], ["truenull"])
    assert [lab.run(answers(isolation)) for isolation in (*MODES, *MODES)] == [expected] * 8


PAGE = {"number": 1, "title": "D", "keys": ["text out"]}
BUTTON = {"verb": "click", "value": None, "page": 1, "key": {"kind": "button", "field": "", "name": "Ask", "place": 0}}


def same(outcome: Outcome) -> tuple[Any, ...]:
    actions = tuple((item.line, item.status, item.note) for item in outcome.actions)
    return (outcome.is_submitted, outcome.is_clean, outcome.fields, outcome.fault, outcome.pages_reached, actions)


def test_all_modes_and_both_executors_give_one_outcome(session: Session[FormEnvironment]) -> None:
    rng = random.Random(11)
    tasks = session.tasks("train")[1:3] + session.tasks("test_layout")[10:11]
    pairs = []
    for task, page in zip(tasks, session.observe_many(tasks), strict=True):
        gold = session.gold_plan(task)
        pairs += [(task, gold), (task, corrupted(gold, page, rng)), (task, "")]
    wanted: list[tuple[Any, ...]] = []
    for isolation, executor in itertools.product(MODES, EXECUTORS):
        outcomes = session.run_many(pairs, isolation=isolation, executor=executor)
        wanted = wanted or [same(outcome) for outcome in outcomes]
        for (task, plan), outcome, expected in zip(pairs, outcomes, wanted, strict=True):
            assert same(outcome) == expected, f"{isolation} {executor} {task.id}\n{plan}"
        assert all(outcome.num_attempts == 1 for outcome in outcomes), f"{isolation} {executor}"
