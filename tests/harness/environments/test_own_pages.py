"""Pages that are not ours, run in both executors: what was sent is received, and a plan's failure stays its own."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dllm_rl.records.tasks import GoldField, Outcome, Task
from dllm_rl.session import Session
from harness.browser import EnvironmentFaultError, Tab
from harness.environments import FormFactoryEnvironment, FormFactorySettings
from harness.execute.executors import EXECUTORS, FastExecutor, Report
from harness.execute.steps import Step

pytestmark = pytest.mark.browser
FOLDER = Path(__file__).parent / "own_pages"


@pytest.fixture(scope="module")
def pages() -> Iterator[Session[FormFactoryEnvironment]]:
    settings = FormFactorySettings(folder=FOLDER, application="site.py:application", fixtures=FOLDER / "fixtures")
    with Session(FormFactoryEnvironment(settings)) as opened:
        yield opened


@pytest.fixture(params=["fast", "trusted"])
def executor(request: pytest.FixtureRequest) -> Any:
    return request.param


def task(page: str, **wanted: str | tuple[str, ...]) -> Task:
    """What the application must receive; the name in every form, unless it is given."""
    values = {"owner": "Ann", **wanted}
    gold = tuple(
        GoldField(name=name, kind="text", wanted=(value,) if isinstance(value, str) else value)
        for name, value in values.items()
    )
    return Task(id=f"test/{page}", split="test", site=f"/{page}", instruction="", gold=gold)


def run(pages: Session[FormFactoryEnvironment], executor: Any, task: Task, *lines: str) -> Outcome:
    """Run lines in which a control is written by its name, as `fill [Your name] "Ann"`."""
    (page,) = pages.observe_many([task])
    plan = "\n".join(lines)
    for control in page.controls:
        plan = plan.replace(f"[{control.name}]", control.ref)
    assert "[" not in plan, (plan, page.controls)
    (outcome,) = pages.run_many([(task, plan)], executor=executor, isolation="context")
    return outcome


FILLED = ('fill [Your name] "Ann"', "submit [Send]")


@pytest.mark.parametrize(
    "page",
    [
        "new-window",
        "named-window",
        "base-target",
        "button-target",
        "script-target",
        "script-submit",
        "hidden-frame",
        "no-content",
        "file-answer",
        "origin",
    ],
)
def test_a_form_is_received_wherever_its_answer_goes(pages: Any, executor: Any, page: str) -> None:
    outcome = run(pages, executor, task(page), *FILLED)
    assert (outcome.is_success, outcome.num_attempts, outcome.num_submissions) == (True, 1, 1), outcome


@pytest.mark.parametrize("page", ["no-address", "mail"])
def test_a_form_that_goes_nowhere_is_the_plans_failure(pages: Any, executor: Any, page: str) -> None:
    outcome = run(pages, executor, task(page), *FILLED, 'fill [Your name] "Bo"')
    assert (outcome.is_valid, outcome.is_submitted, outcome.num_attempts) == (True, False, 1), outcome
    assert outcome.actions[-1].note.startswith("ok fill")


BOTH = ('fill [Your name] "Ann"', 'fill [Home town] "Ypres"', "submit [Send]")


@pytest.mark.parametrize(
    "page",
    [
        "put",
        "patch",
        "json",
        "json-as-text",
        "nested",
        "by-label",
        "graphql",
        "search",
        "multipart",
        "plain-text",
        "telemetry",
        "always-a-hint",
        "thanked-above",
    ],
)
def test_the_request_with_the_fields_is_the_form_and_nothing_else(pages: Any, executor: Any, page: str) -> None:
    outcome = run(pages, executor, task(page, town="Ypres"), *BOTH)
    assert (outcome.is_success, outcome.num_submissions) == (True, 1), outcome


def test_a_script_may_send_a_field_by_its_id(pages: Any, executor: Any) -> None:
    gold = replace(task("by-id", t1="Ypres"), gold=(GoldField(name="t1", kind="text", wanted=("Ypres",)),))
    assert run(pages, executor, gold, 'fill [Home town] "Ypres"', "submit [Send]").fields[0].server == ("Ypres",)


@pytest.mark.parametrize("page", ["answered-late", "sent-later", "submitted-later", "drafts"])
def test_a_form_that_a_script_sends_is_judged_once_it_is_answered(pages: Any, executor: Any, page: str) -> None:
    outcome = run(pages, executor, task(page, town="Ypres"), *BOTH)
    assert (outcome.is_success, outcome.num_submissions) == (True, 1), outcome


def test_a_draft_that_is_kept_is_not_handed_in(pages: Any, executor: Any) -> None:
    preview = [line.replace("submit [Send]", "click [Preview]") for line in BOTH]
    outcome = run(pages, executor, task("drafts", town="Ypres"), *preview)
    assert (outcome.is_submitted, outcome.num_submissions) == (False, 0), outcome


def test_a_browser_that_is_not_ours_is_judged_by_the_whole_form_and_forgotten(pages: Any) -> None:
    environment, wanted = pages.environment, task("telemetry", town="Ypres")
    episode, address = pages.wait_for(environment.begin_elsewhere(wanted))

    def sent(**record: str) -> Outcome:
        parts = urlsplit(address)
        connection = http.client.HTTPConnection("127.0.0.1", parts.port)
        connection.request("POST", "/is-free", json.dumps(record), {"Host": parts.netloc})
        connection.getresponse().read()
        connection.close()
        return pages.wait_for(environment.outcome_elsewhere(wanted, episode))

    assert not sent(owner="Ann").is_submitted
    assert sent(owner="Ann", town="Ypres").is_success
    environment.forget_elsewhere(episode)
    assert environment.proxy.exchanges(episode) == []


def test_a_value_that_is_looked_up_is_not_handed_in(pages: Any, executor: Any) -> None:
    outcome = run(pages, executor, task("one-field-looked-up"), 'fill [Your name] "Ann"', 'press [Your name] "Tab"')
    assert (outcome.is_submitted, outcome.num_submissions) == (False, 0), outcome


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ("shown-again", "rejected: Home town: there is no such town"),
        ("marked-again", "rejected: town is marked as wrong"),
        ("sent-back", "rejected: No such town"),
    ],
)
def test_a_form_that_comes_back_with_errors_was_refused(pages: Any, executor: Any, page: str, says: str) -> None:
    wrong = [line.replace("Ypres", "Yprs") for line in BOTH]
    outcome = run(pages, executor, task(page, town="Ypres"), *wrong, *BOTH)
    assert (outcome.is_success, outcome.num_submissions, outcome.num_rejected) == (True, 2, 1), outcome
    assert outcome.actions[2].note == says
    assert [item.note for item in run(pages, executor, task(page, town="Ypres"), *BOTH).actions][2] == "submitted"


def test_a_record_that_calls_itself_a_failure_is_a_refusal(pages: Any, executor: Any) -> None:
    outcome = run(pages, executor, task("json-refusal", town="Ypres"), *(line.replace("Yp", "Up") for line in BOTH))
    assert (outcome.is_submitted, outcome.num_rejected) == (False, 1)
    assert "no such town" in outcome.validity_errors[0]


PATIENT = {
    "on-keyup": ({}, FILLED),
    "checked-when-left": ({}, FILLED),
    "checked-later": ({}, FILLED),
    "shown-later": ({"town": "Ypres"}, BOTH),
    "filled-for-you": ({"town": "Lille"}, FILLED),
    "fading": ({}, FILLED),
    "two-lists": (
        {"country": "Belgium", "city": "Ypres"},
        (FILLED[0], 'select [Country] "Belgium"', 'select [City] "Ypres"', FILLED[1]),
    ),
    **dict.fromkeys(
        ("suggestions", "late-suggestions"),
        (
            {"airport": "Oslo"},
            (
                FILLED[0],
                'fill [Airport] "Os"',
                'press [Airport] "ArrowDown"',
                'press [Airport] "ArrowDown"',
                'press [Airport] "Enter"',
                FILLED[1],
            ),
        ),
    ),
}


@pytest.mark.parametrize("page", PATIENT)
def test_keys_are_heard_and_what_is_about_to_come_is_waited_for(pages: Any, executor: Any, page: str) -> None:
    wanted, lines = PATIENT[page]
    outcome = run(pages, executor, task(page, **wanted), *lines)
    assert outcome.is_success, outcome
    assert all(item.status == "ok" for item in outcome.actions)


@pytest.mark.parametrize(("written", "shown"), [("Ann", "Ann"), ("An1", "An"), ("Zoé", "Zoé")])
def test_a_page_may_refuse_a_key(pages: Any, executor: Any, written: str, shown: str) -> None:
    outcome = run(pages, executor, task("own-keys"), f'fill [Your name] "{written}"', "submit [Send]")
    assert outcome.fields[0].server == (shown,)


def test_a_page_with_nothing_under_way_is_not_waited_for(pages: Any, executor: Any) -> None:
    absent = run(pages, executor, task("two-lists"), 'select [City] "Ypres"', "submit [Send]")
    late = run(pages, executor, task("two-lists"), 'select [Country] "Belgium"', 'select [City] "Nowhere"')
    assert "wait" not in absent.seconds
    assert 0.1 < late.seconds["wait"] < 3
    assert late.actions[1].note.startswith('no option "Nowhere" in')


class Breaking(FastExecutor):
    """Loses the page at some lines, one for each attempt."""

    def __init__(self, *lines: int) -> None:
        self.lines = list(lines)

    async def perform(
        self, tab: Tab, steps: Sequence[Step], pages: list[dict[str, Any]], on_press: Any = None
    ) -> Report:
        if steps[0].action.line == self.lines[0]:
            self.lines.pop(0)
            raise EnvironmentFaultError("the page no longer answers")
        return await super().perform(tab, steps[:1], pages, on_press)


def test_a_page_that_a_plan_breaks_every_time_is_the_plans_failure(pages: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(EXECUTORS, "fast", Breaking(2, 2, 2))
    outcome = run(pages, "fast", task("new-window"), *FILLED)
    assert (outcome.is_valid, outcome.is_submitted, outcome.num_attempts) == (True, False, 3), outcome
    assert outcome.fault_reason == "line 2: the page broke at p1.e2, every time"
    assert outcome.actions[0].note == "ok fill p1.e1"


def test_a_page_that_breaks_now_here_and_now_there_is_lost_to_the_environment(pages: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(EXECUTORS, "fast", Breaking(1, 2, 2))
    assert not run(pages, "fast", task("new-window"), *FILLED).is_valid
