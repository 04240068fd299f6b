"""What counts of a page is what it shows at the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dllm_rl.records.plan import parse_plan
from dllm_rl.records.tasks import Control, Observation
from harness.execute import ServerView, execute
from harness.execute.executors import Report

PAGE = Observation(
    titles=("One",),
    controls=(
        Control(ref="p1.e1", kind="radio", name="Yes", field="more"),
        Control(ref="p1.e2", kind="text", name="Which", field="which"),
        Control(ref="p1.e3", kind="radio", name="No", field="more"),
    ),
)
STATES = ({"more": ["Yes"], "which": []}, {"more": ["Yes"], "which": ["gold"]}, {"more": ["No"]})
OK = {"status": "ok", "note": "ok"}


class FakeTab:
    dialogs: tuple[str, ...] = ()

    def expect_load(self) -> None:
        pass

    async def call(self, function: str, argument: Any = None, **_: Any) -> dict[str, Any]:
        return {"here": 1, "title": "One", "isLeaving": False, "values": STATES[-1], "alerts": []}


class Steps:
    """An executor that takes so many steps at once."""

    name = "fast"

    def __init__(self, num_at_once: int) -> None:
        self.num_at_once, self.num_done = num_at_once, 0

    async def perform(self, tab: Any, steps: Any, pages: Any) -> Report:
        self.num_done += self.num_at_once
        values = STATES[self.num_done - 1]
        return Report(results=(OK,) * self.num_at_once, here=1, title="One", is_leaving=False, values=values)


@pytest.mark.parametrize("num_at_once", [1, 3])
def test_a_field_that_was_filled_and_then_hidden_is_gone(num_at_once: int) -> None:
    plan = parse_plan('choose p1.e1\nfill p1.e2 "gold"\nchoose p1.e3')
    server = ServerView(is_accepted=lambda: False, rejections=list)
    execution = asyncio.run(execute(FakeTab(), Steps(num_at_once), plan, PAGE, server))  # type: ignore[arg-type]
    assert execution.values == {"more": ("No",)}
