"""Real input: every action goes through Chromium's own mouse and keyboard path, one after the other.

What an action may do is decided by the same script in the page as for `executor_fast`, so that both refuse alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from playwright.async_api import ElementHandle
from playwright.async_api import Error as PlaywrightError

from harness.executor import ExecutorName, Report
from harness.faults import EnvironmentFaultError, attribute
from harness.steps import Step
from harness.tab import Tab

ACTION_SECONDS = 2.0
_tokens = itertools.count(1)


class TrustedExecutor:
    """Slower by a factor of three to five than `FastExecutor`; its events are trusted by every page."""

    name: ExecutorName = "trusted"

    async def perform(self, tab: Tab, steps: Sequence[Step], pages: list[dict[str, Any]]) -> Report:
        """Run one step."""
        return await perform_one(tab, steps[0], pages)


async def perform_one(tab: Tab, step: Step, pages: list[dict[str, Any]]) -> Report:
    """Check in the page, act with real input, read back."""
    request = {"step": step.payload(), "pages": pages, "token": next(_tokens)}
    before = await tab.call("prepare", request, seconds=ACTION_SECONDS)
    if before.get("result"):
        after = await tab.call("look", pages, seconds=ACTION_SECONDS)
        return Report.read(after, [before["result"]])
    with attribute("real input"):
        await tab.within(_input(tab, step, before), ACTION_SECONDS)
    return await _read_back(tab, request, before)


async def _input(tab: Tab, step: Step, before: dict[str, Any]) -> None:
    verb, value = step.action.verb, step.action.value or ""
    if verb in ("fill", "clear"):
        await (await _target(tab)).fill(value, force=True)
    elif verb == "select":
        await (await _target(tab)).select_option(index=before["indexes"], force=True)
    elif verb == "press":
        await (await _target(tab)).focus()
        await tab.page.keyboard.press(value)
    else:
        await tab.page.mouse.click(before["point"]["x"], before["point"]["y"])


async def _target(tab: Tab) -> ElementHandle:
    handle = await tab.page.evaluate_handle("() => window.__dllm.target()")
    element = handle.as_element()
    if element is None:
        raise EnvironmentFaultError("real input: the page was replaced before the action")
    return element


async def _read_back(tab: Tab, request: dict[str, Any], before: dict[str, Any]) -> Report:
    """A page that has been replaced meanwhile was left by the action; its last state is the one before."""
    try:
        after = await tab.call("readBackTarget", request, seconds=ACTION_SECONDS)
    except EnvironmentFaultError as fault:
        if not (isinstance(fault.__cause__, PlaywrightError) and "context was destroyed" in str(fault)):
            raise
        after = {"isLeaving": True, "result": {"status": "ok", "note": "ok"}}
    return Report.read({**before, **after}, [after["result"]])
