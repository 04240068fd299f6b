"""Faults are injected, not mocked: what the environment loses is tried again and masked, what a plan does is not."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Error as PlaywrightError

from dllm_rl.errors import HarnessError
from dllm_rl.records.tasks import Fault, Outcome, Task
from dllm_rl.session import Session
from harness.browser import AgentDeadlineError, BrowserPool, EnvironmentFaultError, attribute, tab
from harness.browser.faults import Pace
from harness.environments import FormEnvironment, FormSettings
from harness.execute.executors import FastExecutor
from harness.rewards import Shaped
from harness.sites import SiteServer
from tests.harness.conftest import Lab

Application = Callable[[Any, Any, Any], Awaitable[None]]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PlaywrightError("Page.goto: net::ERR_CONNECTION_REFUSED at http://127.0.0.1/"), EnvironmentFaultError),
        (PlaywrightError("Page.evaluate: Target crashed"), EnvironmentFaultError),
        (PlaywrightError("Target page, context or browser has been closed"), EnvironmentFaultError),
        (ConnectionResetError("reset"), EnvironmentFaultError),
        (TimeoutError(), EnvironmentFaultError),
        (PlaywrightError("Page.evaluate: ReferenceError: x is not defined"), HarnessError),
        (KeyError("here"), HarnessError),
        (AgentDeadlineError("late"), AgentDeadlineError),
        (HarnessError("bug"), HarnessError),
    ],
)
def test_every_exception_is_attributed(error: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected), attribute("test"):
        raise error


@pytest.mark.slow
@pytest.mark.browser
def test_a_killed_browser_changes_no_reward(session: Session[FormEnvironment]) -> None:
    pairs = [(task, session.gold_plan(task)) for task in session.tasks("train")]
    num_killed = 0

    def kill_once(index: int, outcome: Outcome) -> None:
        nonlocal num_killed
        if not num_killed:
            num_killed += 1
            for pid in session.pids:
                os.kill(pid, signal.SIGKILL)

    outcomes = session.run_many(pairs, on_result=kill_once)
    assert num_killed
    assert [Shaped()(outcome) for outcome in outcomes] == [1.0] * len(pairs)
    assert max(outcome.num_attempts for outcome in outcomes) > 1


class FaultySite:
    """A site server that does something wrong with the first `times` forms that are sent to it."""

    def __init__(self, application: Application, fault: Application, times: int) -> None:
        self.application, self.fault, self.times = application, fault, times

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and self.times > 0:
            self.times -= 1
            await self.fault(scope, receive, send)
        else:
            await self.application(scope, receive, send)


async def answer_500(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 500, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"<h1>Sorry</h1>"})


async def hang(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(60)


async def reset(scope: Any, receive: Any, send: Any) -> None:
    raise ConnectionResetError("injected")


@pytest.fixture(scope="module")
def contact(session: Session[FormEnvironment]) -> tuple[Task, str]:
    task = next(task for task in session.tasks("train") if ".small." in task.site and "contact" in task.site)
    return task, session.gold_plan(task)


def run_with(fault: Application, times: int, task: Task, plan: str, settings: FormSettings) -> Outcome:
    async def run() -> Outcome:
        environment = FormEnvironment(settings)
        async with environment:
            await environment.observe(task)
            faulty.times = times
            return await environment.run(task, plan)

    original = SiteServer.__init__
    faulty = FaultySite(application=lambda *_: asyncio.sleep(0), fault=fault, times=0)

    def with_fault(server: SiteServer) -> None:
        original(server)
        faulty.application = server.app
        server.app = faulty  # type: ignore[assignment]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SiteServer, "__init__", with_fault)
        return asyncio.run(run())


@pytest.mark.browser
def test_one_server_error_is_tried_again(session: Session[FormEnvironment], contact: tuple[Task, str]) -> None:
    outcome = run_with(answer_500, 1, *contact, session.environment.settings)
    assert (Shaped()(outcome), outcome.num_attempts) == (1.0, 2)


@pytest.mark.browser
@pytest.mark.parametrize("fault", [answer_500, hang, reset], ids=["500", "hang", "reset"])
def test_a_broken_server_is_the_environments(
    session: Session[FormEnvironment], contact: tuple[Task, str], fault: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault is hang:
        monkeypatch.setattr(tab, "LOAD_SECONDS", 0.5)
    outcome = run_with(fault, 99, *contact, session.environment.settings)
    assert outcome.fault is Fault.ENVIRONMENT
    assert outcome.num_attempts == 3
    assert not outcome.is_valid
    assert outcome.fault_reason


@pytest.mark.browser
def test_what_a_plan_does_wrong_is_the_agents(session: Session[FormEnvironment], contact: tuple[Task, str]) -> None:
    task, gold = contact
    for plan in ('fill p9.e9 "x"', "not a plan", gold.rsplit("\n", 1)[-1]):
        (outcome,) = session.run_many([(task, plan)])
        assert outcome.fault is Fault.AGENT
        assert outcome.fault_reason.startswith("line 1: ")
        assert outcome.num_attempts == 1


@pytest.mark.browser
def test_a_page_in_an_endless_script_is_the_environments(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.execute.executors.PAGE_SECONDS", 0.3)
    body = "<h1>Loop</h1><form><button type=button onclick='while (true);'>Go</button></form>"
    with pytest.raises(EnvironmentFaultError, match="no longer answers"):
        lab.plan(body, "click p1.e1", FastExecutor())


@pytest.mark.browser
def test_nothing_of_one_rollout_is_left_for_the_next(lab: Lab) -> None:
    lab.show("""<h1>S</h1><form><input name=seen aria-label=Seen></form><script>
    document.querySelector('input').value = document.cookie + (localStorage.mark ?? '') + (sessionStorage.mark ?? '');
    document.cookie = 'mark=1'; localStorage.mark = sessionStorage.mark = '1'; setInterval(() => {}, 10);</script>""")

    async def seen(isolation: Any) -> str:
        async with lab.pool.tab(isolation) as opened:
            await opened.goto(lab.base_url)
            return (await opened.call("inventory", seconds=2))["controls"][0]["value"]

    assert [lab.run(seen(isolation)) for isolation in ("page", "page", "page", "context", "context")] == [""] * 5


@pytest.mark.browser
def test_tabs_are_recycled(lab: Lab) -> None:
    lab.show("<h1>R</h1>")

    async def num_rollouts() -> list[int]:
        pool, counts = BrowserPool(recycle_after=2), []
        for _ in range(5):
            async with pool.tab("page") as opened:
                await opened.goto(lab.base_url)
                counts.append(opened.num_rollouts)
        await pool.close()
        return counts

    assert lab.run(num_rollouts()) == [1, 2, 1, 2, 1]


class HalfOpened:
    """A browser whose context opens no page."""

    browser = None
    is_closed = False

    async def new_context(self, **options: Any) -> HalfOpened:
        return self

    async def add_init_script(self, script: str) -> None:
        pass

    async def new_page(self) -> None:
        raise asyncio.CancelledError

    async def close(self) -> None:
        self.is_closed = True


def test_a_context_without_its_page_is_closed() -> None:
    browser = HalfOpened()

    async def opened() -> None:
        await tab.Tab.open(browser, Pace())

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(opened())
    assert browser.is_closed
