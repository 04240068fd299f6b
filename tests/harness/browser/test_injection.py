"""Broken networks, servers, browsers, drivers: nothing of it becomes the agent's, no task is lost, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from dllm_rl.records.tasks import Fault, Outcome, Task
from dllm_rl.session import Session
from harness.browser import AgentDeadlineError, BrowserPool, EnvironmentFaultError, tab
from harness.browser.pool import OPEN_SECONDS, _Running
from harness.environments import FormEnvironment, FormSettings
from harness.environments.base import Quarantine
from harness.rewards import Success
from tests.harness.conftest import Lab
from tests.harness.injection import FAULTS, Choose, InjectingServer, first, sometimes
from tests.processes import command_line, descendants

T = TypeVar("T")
Pairs = list[tuple[Task, str]]


def running_with(session: Session[FormEnvironment]) -> set[int]:
    """Our processes once the shared session has started its own."""
    session.observe_many(session.tasks("train"))
    return descendants(os.getpid())


async def none_left(before: set[int], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while descendants(os.getpid()) - before:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True


def with_server(
    session: Session[FormEnvironment],
    choose: Choose,
    work: Callable[[FormEnvironment, Pairs], Coroutine[Any, Any, T]],
    **more: Any,
) -> T:
    """Work in an environment whose site server is reached through the injecting proxy; pairs are gold plans."""
    settings = FormSettings(
        counts={"train": 15},
        cache_dir=session.environment.settings.cache_dir,
        shares_identical=False,
        **{"isolation": "page", **more},
    )
    pairs = [(task, session.gold_plan(task)) for task in session.tasks("train")]

    async def run() -> T:
        environment = FormEnvironment(settings)
        environment.server = InjectingServer()
        async with environment:
            environment.server.choose = choose
            return await work(environment, pairs)

    return asyncio.run(run())


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("isolation", ["page", "arena"])
def test_a_redirect_that_was_cut_short_is_not_the_agents(session: Session[FormEnvironment], isolation: str) -> None:
    """Its document is empty, and what the plan does there would fail; only forms of several pages go on after it."""

    async def work(environment: FormEnvironment, pairs: Pairs) -> Outcome:
        pages = await environment.observe_many([task for task, _ in pairs])
        wizard = next(pair for pair, page in zip(pairs, pages, strict=True) if len(page.titles) > 1)
        return await environment.run(*wizard)

    outcome = with_server(session, first(1, "cut", method=b"POST"), work, isolation=isolation)
    assert (Success()(outcome), outcome.num_attempts) == (1.0, 2)


class Dying:
    """A browser that ends while a page is opened in it: the page never comes, and nobody says so."""

    def __init__(self) -> None:
        self.num_asked = 0

    def is_connected(self) -> bool:
        self.num_asked += 1
        return self.num_asked < 2

    async def new_context(self, **_: Any) -> Any:
        await asyncio.sleep(3600)


def test_a_page_that_never_opens_is_lost_with_its_browser_and_not_at_the_deadline() -> None:
    async def opening() -> None:
        pool = BrowserPool()
        await pool._open(_Running(browser=Dying(), pid=0), "page", False)  # type: ignore[arg-type]

    started = time.monotonic()
    with pytest.raises(EnvironmentFaultError, match="ended while a page was being opened"):
        asyncio.run(opening())
    assert time.monotonic() - started < OPEN_SECONDS / 2


@pytest.mark.browser
@pytest.mark.parametrize("isolation", ["page", "arena"])
def test_an_injected_fault_costs_an_attempt_and_nothing_else(
    session: Session[FormEnvironment], monkeypatch: pytest.MonkeyPatch, isolation: str
) -> None:
    """Every fault, when a page is loaded and when a form is submitted, in one browser."""
    monkeypatch.setattr(tab, "LOAD_SECONDS", 0.4)
    monkeypatch.setattr("harness.browser.arena.LOAD_SECONDS", 0.4)
    cases: list[tuple[Any, bytes]] = [(fault, method) for fault in FAULTS for method in (b"GET", b"POST")]

    async def work(environment: FormEnvironment, pairs: Pairs) -> list[Outcome]:
        found = []
        assert isinstance(environment.server, InjectingServer)
        for fault, method in cases:
            environment.server.choose = first(1, fault, method=method)
            found.append(await environment.run(*pairs[0]))
        return found

    for (fault, method), outcome in zip(
        cases, with_server(session, lambda head: None, work, isolation=isolation), strict=True
    ):
        # A form that was accepted before its answer was cut short is accepted: what the server received is the truth.
        is_accepted_before = fault == "cut" and method == b"POST"
        assert Success()(outcome) == 1.0, (fault, method)
        assert outcome.num_attempts in ((1, 2) if is_accepted_before else (2,)), (fault, method)


@pytest.mark.browser
@pytest.mark.parametrize("victim", ["browser", "renderers", "driver"])
def test_killed_processes_lose_no_rollout_and_leave_none(session: Session[FormEnvironment], victim: str) -> None:
    before = running_with(session)

    async def work(environment: FormEnvironment, pairs: Pairs) -> list[Outcome]:
        own = descendants(os.getpid()) - before
        chosen = {
            "browser": set(environment.pool.pids),
            "renderers": {pid for pid in own if b"--type=renderer" in command_line(pid)},
            "driver": {pid for pid in own if b"playwright/driver" in command_line(pid)},
        }
        is_killed = False

        def kill(index: int, outcome: Outcome) -> None:
            nonlocal is_killed
            for pid in () if is_killed else chosen[victim]:
                os.kill(pid, signal.SIGKILL)
            is_killed = True

        outcomes = await environment.run_many(pairs, on_result=kill)
        assert is_killed
        return outcomes

    outcomes = with_server(session, lambda head: None, work)
    assert [outcome.fault_reason for outcome in outcomes] == [""] * len(outcomes)
    assert [Success()(outcome) for outcome in outcomes] == [1.0] * len(outcomes)
    assert asyncio.run(none_left(before))


@pytest.mark.browser
@pytest.mark.parametrize("victim", ["browser", "driver"])
def test_a_wait_for_a_document_ends_with_its_browser_and_not_at_the_deadline(
    session: Session[FormEnvironment], monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    monkeypatch.setattr(tab, "LOAD_SECONDS", 600.0)
    before = running_with(session)

    async def wait_and_kill(environment: FormEnvironment) -> None:
        async with environment.pool.tab("page") as opened:
            opened.expect_load()
            wait = asyncio.ensure_future(opened.loaded())
            await asyncio.sleep(0)
            own = descendants(os.getpid()) - before
            drivers = {pid for pid in own if b"playwright/driver" in command_line(pid)}
            for pid in environment.pool.pids if victim == "browser" else drivers:
                os.kill(pid, signal.SIGKILL)
            await wait

    async def work(environment: FormEnvironment, pairs: Pairs) -> str:
        with pytest.raises(EnvironmentFaultError) as caught:
            await wait_and_kill(environment)
        return str(caught.value)

    assert "closed" in with_server(session, lambda head: None, work).lower()
    assert asyncio.run(none_left(before))


HOG = "const hoard = []; while (true) hoard.push(new Array(1e6).fill(hoard.length));"
STORM = "for (let at = 0; at < 300; at++) alert(at);"


@pytest.mark.browser
@pytest.mark.parametrize("script", [HOG, STORM], ids=["memory hog", "alert storm"])
def test_a_page_that_goes_wild_leaves_the_pool_alive(lab: Lab, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.show(f"<h1>W</h1><form><button type=button onclick='{script}'>Go</button></form>")
    monkeypatch.setattr("harness.execute.executors.PAGE_SECONDS", 0.5)
    step = {"verb": "click", "value": None, "page": 1, "key": {"kind": "button", "field": "", "name": "Go"}}
    pages = [{"number": 1, "title": "W", "keys": ["button "]}]

    async def visit(seconds: float) -> str:
        async with lab.pool.tab("page") as opened:
            await opened.goto(lab.base_url)
            await opened.call("perform", {"steps": [step], "pages": pages}, seconds=seconds, is_action=True)
        return "done"

    with contextlib.suppress(EnvironmentFaultError, AgentDeadlineError):
        assert lab.run(visit(1.0)) == "done"
    lab.show("<h1>W</h1><form><button type=button>Go</button></form>")
    assert lab.run(visit(5.0)) == "done"


def test_a_site_that_keeps_failing_is_quarantined_unless_all_fail() -> None:
    quarantine = Quarantine()
    for _ in range(5):
        quarantine.lost("bad", "500")
        quarantine.lost("other", "500")
    assert quarantine.reasons == {}
    quarantine.served("good")
    quarantine.lost("bad", "500")
    assert list(quarantine.reasons) == ["bad"]
    assert "500" in quarantine.reasons["bad"]
    for _ in range(2):
        quarantine.lost("moody", "reset")
    quarantine.served("moody")
    quarantine.lost("moody", "reset")
    assert list(quarantine.reasons) == ["bad"]


@pytest.mark.browser
def test_a_quarantined_site_costs_no_attempts(session: Session[FormEnvironment]) -> None:
    async def work(environment: FormEnvironment, pairs: Pairs) -> list[Outcome]:
        broken = pairs[0][0].site.encode()
        environment.server.choose = lambda head: "close" if broken in head.split(b"\r\n")[0] else None  # type: ignore
        results = []
        for pair in [pairs[0], pairs[1], pairs[0], pairs[0], pairs[0], pairs[1]]:
            results.append(await environment.run(*pair))
        return results

    outcomes = with_server(session, lambda head: None, work)
    assert [outcome.is_valid for outcome in outcomes] == [False, True, False, False, False, True]
    assert [outcome.num_attempts for outcome in outcomes] == [3, 1, 3, 3, 0, 1]
    assert "quarantined" in outcomes[4].fault_reason


@pytest.mark.soak
@pytest.mark.timeout(14400)
@pytest.mark.parametrize("chunk", range(10))
def test_a_thousand_injected_faults_are_never_the_agents(
    session: Session[FormEnvironment], monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """A fifth of all requests breaks, and every 100th rollout its browser, until 1,000 faults were injected."""
    monkeypatch.setattr(tab, "LOAD_SECONDS", 1.0)
    monkeypatch.setattr("harness.browser.arena.LOAD_SECONDS", 1.0)
    before = running_with(session)
    rng = random.Random(chunk)

    async def work(environment: FormEnvironment, pairs: Pairs) -> list[Outcome]:
        results: list[Outcome] = []

        def kill(index: int, outcome: Outcome) -> None:
            if index % 100 == 99:
                for pid in environment.pool.pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

        # Agent faults beside them: a plan with a control that is none in place of its first line.
        spoilt = [(task, "click p9.e9\n" + plan.split("\n", 1)[-1]) for task, plan in pairs]
        server = environment.server
        assert isinstance(server, InjectingServer)
        while server.num_injected < 1000:
            results += await environment.run_many([*pairs, *spoilt] * 4, on_result=kill)
        return results

    # Most of the time is spent waiting for what hangs.
    isolation = ("page", "arena")[chunk % 2]
    outcomes = with_server(session, sometimes(0.2, FAULTS, rng), work, isolation=isolation, concurrency=12)
    assert asyncio.run(none_left(before))
    num_pairs = len(session.tasks("train"))
    for index, outcome in enumerate(outcomes):
        if outcome.fault is not Fault.ENVIRONMENT:
            is_gold = index % (2 * num_pairs) < num_pairs
            assert outcome.fault is (Fault.NONE if is_gold else Fault.AGENT), outcome
            assert (Success()(outcome) == 1.0) or not is_gold
    lost = sum(not outcome.is_valid for outcome in outcomes)
    print(f"{len(outcomes)} rollouts in {isolation}, {lost} lost to the environment after three attempts")
