"""What counts of a page is what it shows at the end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from dllm_rl.records.plan import parse_plan
from dllm_rl.records.tasks import Control, Observation
from harness.browser import EnvironmentFaultError
from harness.execute import Execution, Presses, ServerView, execute
from harness.execute.executors import Report

PAGE = Observation(
    titles=("One",),
    controls=(
        Control(ref="p1.e1", kind="radio", name="Yes", field="more"),
        Control(ref="p1.e2", kind="text", name="Which", field="which"),
        Control(ref="p1.e3", kind="radio", name="No", field="more"),
        Control(ref="p1.e4", kind="button", name="Send"),
    ),
)
STATES = ({"more": ["Yes"], "which": []}, {"more": ["Yes"], "which": ["gold"]}, {"more": ["No"]})
OK = {"status": "ok", "note": "ok"}


class FakeTab:
    dialogs: tuple[str, ...] = ()

    def expect_load(self) -> None:
        pass

    async def call(self, function: str, argument: Any = None, **_: Any) -> dict[str, Any]:
        return {"here": 1, "title": "One", "isLeaving": False, "values": STATES[-1], "alerts": [], "waited": 0.0}


class Steps:
    """An executor that takes so many steps at once."""

    name = "fast"

    def __init__(self, num_at_once: int) -> None:
        self.num_at_once, self.num_done = num_at_once, 0

    async def perform(self, tab: Any, steps: Any, pages: Any, on_press: Any = None) -> Report:
        if on_press is not None and steps[0].is_press:
            on_press()
        self.num_done += self.num_at_once
        values = STATES[self.num_done - 1]
        return Report(results=(OK,) * self.num_at_once, here=1, title="One", is_leaving=False, values=values)


@pytest.mark.parametrize("num_at_once", [1, 3])
def test_a_field_that_was_filled_and_then_hidden_is_gone(num_at_once: int) -> None:
    plan = parse_plan('choose p1.e1\nfill p1.e2 "gold"\nchoose p1.e3')
    server = ServerView(is_accepted=lambda: False, rejections=list)
    execution = asyncio.run(execute(FakeTab(), Steps(num_at_once), plan, PAGE, server))  # type: ignore[arg-type]
    assert execution.values == {"more": ("No",)}


class LeavingTab(FakeTab):
    """The last line leads to a page that hangs."""

    async def loaded(self, **_: Any) -> bool:
        return True

    async def call(self, function: str, argument: Any = None, **_: Any) -> dict[str, Any]:
        raise EnvironmentFaultError("the page no longer answers")


class Leave(Steps):
    async def perform(self, tab: Any, steps: Any, pages: Any, on_press: Any = None) -> Report:
        return Report(results=(OK,) * len(steps), here=1, title="One", is_leaving=True)


PLAN = parse_plan('fill p1.e2 "gold"\nclick p1.e4')


async def _unanswered() -> None:
    raise EnvironmentFaultError("the application did not answer the form in time")


def hanging(tab: Any, executor: Any, presses: Presses | None, suspect: int | None) -> Execution:
    server = ServerView(is_accepted=lambda: False, rejections=list, presses=presses)
    return asyncio.run(execute(tab, executor, PLAN, PAGE, server, suspect=suspect))


@pytest.mark.parametrize("how", ["a page that hangs", "a form that is not answered"])
def test_what_hangs_after_the_last_line_every_time_is_that_lines_doing(how: str) -> None:
    def run(suspect: int | None) -> Execution:
        if how == "a page that hangs":
            return hanging(LeavingTab(), Leave(1), None, suspect)
        return hanging(FakeTab(), Steps(1), Presses(num_requests=lambda: 0, answered=_unanswered), suspect)

    with pytest.raises(EnvironmentFaultError) as fault:
        run(None)
    assert fault.value.line == 2
    assert [item.note for item in run(2).actions][1] == "the page broke at p1.e4, every time"


def test_a_press_is_noted_once_and_one_that_failed_is_none() -> None:
    async def quiet() -> None:
        pass

    class Failing(Steps):
        async def perform(self, tab: Any, steps: Any, pages: Any, on_press: Any = None) -> Report:
            report = await super().perform(tab, steps, pages, on_press)
            return replace(report, results=({"status": "failed", "note": "validation", "messages": []},))

    def first(executor: Steps, plan: str) -> int | None:
        presses = Presses(num_requests=lambda: executor.num_done, answered=quiet)
        server = ServerView(is_accepted=lambda: False, rejections=list, presses=presses)
        asyncio.run(execute(FakeTab(), executor, parse_plan(plan), PAGE, server))  # type: ignore[arg-type]
        return presses.first

    assert first(Steps(1), "choose p1.e1\nclick p1.e4\nclick p1.e4") == 1
    assert first(Steps(1), "choose p1.e1") is None
    assert first(Failing(1), "click p1.e4") is None
