"""Executors: how the steps of a plan act on the loaded document, until that document is left.

`fast` acts by script in the page. `trusted` sends clicks, typing and keys through Chromium's own mouse and keyboard.
The same script in the page decides for both what an action may do, so that they refuse alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Keyboard, Page

from dllm_rl.errors import unknown_name
from harness.browser import EnvironmentFaultError, Tab, attribute
from harness.execute.steps import Step

ExecutorName = Literal["fast", "trusted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What happened to the first `len(results)` steps, and the state of the page.

    Attributes:
        results: One note record for each step, as `steps.sentence` reads it.
        here: Number of the scouted page; 0 for none.
        title: Title of the page.
        is_leaving: Whether the last step leads to another document.
        values: Visible form data by field name.
        alerts: Texts that the page announces.
        waited: Seconds for which the page was waited for, since it was last asked.
    """

    results: tuple[dict[str, Any], ...]
    here: int
    title: str
    is_leaving: bool
    values: dict[str, list[str]] = field(default_factory=dict)
    alerts: tuple[str, ...] = ()
    waited: float = 0.0

    @classmethod
    def read(cls, record: dict[str, Any], results: Sequence[dict[str, Any]] = ()) -> Report:
        """Read the record of the page's script."""
        return cls(
            results=tuple(results),
            here=record["here"],
            title=record["title"],
            is_leaving=record["isLeaving"],
            values=record["values"],
            alerts=tuple(record["alerts"]),
            waited=record["waited"],
        )


class Executor(Protocol):
    """Carries out steps. All executors share the semantics of `harness.execute.execute`; only the events differ."""

    name: ExecutorName

    async def perform(
        self,
        tab: Tab,
        steps: Sequence[Step],
        pages: list[dict[str, Any]],
        on_press: Callable[[], None] | None = None,
    ) -> Report:
        """Run steps in order until one makes the page leave; at least one step is consumed.

        Args:
            tab: The tab.
            steps: The steps.
            pages: The scouted pages.
            on_press: Called between all that comes before the first press and that press, which is then the last step
                that is consumed; None where nobody asks.
        """
        ...


async def look(tab: Tab, pages: list[dict[str, Any]]) -> Report:
    """Read the state of the page without acting."""
    return Report.read(await tab.call("look", pages, seconds=2.0))


async def settle(tab: Tab) -> bool:
    """Wait until the page has nothing under way. Returns whether it is being left for another document."""
    try:
        await tab.call("settled", seconds=SETTLE_SECONDS)
        return (await look(tab, [])).is_leaving
    except EnvironmentFaultError as fault:
        if not _was_replaced(fault):
            raise
        return True


def _was_replaced(fault: EnvironmentFaultError) -> bool:
    """Whether a call was lost because its document was replaced meanwhile."""
    return isinstance(fault.__cause__, PlaywrightError) and "context was destroyed" in str(fault)


ACTION_SECONDS = 2.0
SETTLE_SECONDS = 5.0
_tokens = itertools.count(1)


class TrustedExecutor:
    """Acts by real input, which every page trusts. It takes nearly twice the CPU time of `FastExecutor`."""

    name: ExecutorName = "trusted"

    async def perform(
        self,
        tab: Tab,
        steps: Sequence[Step],
        pages: list[dict[str, Any]],
        on_press: Callable[[], None] | None = None,
    ) -> Report:
        """Run one step."""
        return await perform_one(tab, steps[0], pages, on_press)


async def perform_one(
    tab: Tab, step: Step, pages: list[dict[str, Any]], on_press: Callable[[], None] | None = None
) -> Report:
    """Check in the page, act with real input, read back."""
    request = _request(step, pages)
    async with tab.acting(is_real=True):
        before = await tab.call("prepare", request, seconds=ACTION_SECONDS, is_action=True)
        if before.get("result"):
            return Report.read(before, [before["result"]])
        if on_press is not None and step.is_press:
            on_press()
        if before["numBoxes"]:
            await _type_into_boxes(tab, step.action.value or "", before["numBoxes"])
        else:
            with attribute("real input"):
                await tab.within(_input(tab.page, step, before), ACTION_SECONDS, is_action=True)
        return await _read_back(tab, request, before)


def _request(step: Step, pages: list[dict[str, Any]]) -> dict[str, Any]:
    return {"step": step.payload(), "pages": pages, "token": next(_tokens)}


async def _input(page: Page, step: Step, prepared: dict[str, Any]) -> None:
    verb, value = step.action.verb, step.action.value or ""
    if verb == "press":
        await page.keyboard.press(value)
    elif verb in ("fill", "clear"):
        await _type(page.keyboard, value, by_key=prepared["hearsKeys"])
    else:
        await page.mouse.click(prepared["point"]["x"], prepared["point"]["y"])


async def _type_into_boxes(tab: Tab, value: str, num_boxes: int) -> None:
    """Type a character into each box of a row, as far as the value goes, and empty the others."""
    for at in range(num_boxes):
        letter = await tab.call("nextBox", {"value": value, "at": at}, seconds=ACTION_SECONDS, is_action=True)
        if letter is not None:
            with attribute("real input"):
                await tab.within(_type(tab.page.keyboard, letter, by_key=True), ACTION_SECONDS, is_action=True)


async def _type(keyboard: Keyboard, value: str, *, by_key: bool) -> None:
    """Replace what is selected.

    Args:
        keyboard: The browser's keyboard.
        value: What is typed; "" to erase.
        by_key: Whether the last character comes by a key of its own, where the keyboard has one.
    """
    if not value:
        await keyboard.press("Delete")
    elif by_key and " " <= value[-1] <= "~":
        if len(value) > 1:
            await keyboard.insert_text(value[:-1])
        await keyboard.type(value[-1])
    else:
        await keyboard.insert_text(value)


async def _read_back(tab: Tab, request: dict[str, Any], before: dict[str, Any]) -> Report:
    """A page that has been replaced meanwhile was left by the action; its last state is the one before."""
    try:
        after = await tab.call("readBackTarget", request, seconds=ACTION_SECONDS, is_action=True)
    except EnvironmentFaultError as fault:
        if not _was_replaced(fault):
            raise
        after = {"isLeaving": True, "result": {"status": "ok", "note": "ok"}}
    return Report.read({**before, **after}, [after["result"]])


PAGE_SECONDS = 2.0
STEP_SECONDS = 0.2


class FastExecutor:
    """The whole plan of a page in one call: checks, native setters, the events a browser emits, and reading back.

    Its events are not trusted (`isTrusted` is false), which makes no difference on the built-in sites; key presses go
    to the real keyboard.
    """

    name: ExecutorName = "fast"

    async def perform(
        self,
        tab: Tab,
        steps: Sequence[Step],
        pages: list[dict[str, Any]],
        on_press: Callable[[], None] | None = None,
    ) -> Report:
        """Run all steps up to the first that leaves the page, or up to a key press."""
        if steps[0].action.verb == "press" and steps[0].control is not None:
            return await perform_one(tab, steps[0], pages, on_press)
        if on_press is None:
            return await self._perform(tab, steps, pages)
        num_before = next((at for at, step in enumerate(steps) if step.is_press), len(steps))
        if num_before:
            return await self._perform(tab, steps[:num_before], pages)
        waited = await _before_press(tab, steps[0], pages, on_press)
        report = await self._perform(tab, steps[:1], pages)
        return replace(report, waited=report.waited + waited)

    async def _perform(self, tab: Tab, steps: Sequence[Step], pages: list[dict[str, Any]]) -> Report:
        request = {"steps": [step.payload() for step in steps], "pages": pages}
        seconds = PAGE_SECONDS + STEP_SECONDS * len(steps)
        async with tab.acting(is_real=False):
            record = await tab.call("perform", request, seconds=seconds, is_action=True)
        return Report.read(record, record["results"])


async def _before_press(tab: Tab, step: Step, pages: list[dict[str, Any]], on_press: Callable[[], None]) -> float:
    """Leave the field that has the focus, and let the page finish what it does then. Returns the seconds waited."""
    async with tab.acting(is_real=False):
        before = await tab.call("prepare", _request(step, pages), seconds=ACTION_SECONDS, is_action=True)
    if not before.get("result"):
        on_press()
    return before["waited"]


EXECUTORS: dict[ExecutorName, Executor] = {"fast": FastExecutor(), "trusted": TrustedExecutor()}


def executor_named(name: str) -> Executor:
    """Return the executor of this name. Raises ConfigError, with the nearest known name, if there is none."""
    for known, executor in EXECUTORS.items():
        if name == known:
            return executor
    raise unknown_name("executor", name, EXECUTORS)
