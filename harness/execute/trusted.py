"""Real input: clicks, typing and keys go through Chromium's own mouse and keyboard path, one after the other.

What an action may do is decided by the same script in the page as for `executor_fast`, so that both refuse alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Page

from harness.browser import EnvironmentFaultError, Tab, attribute
from harness.execute.base import ExecutorName, Report
from harness.execute.steps import Step

ACTION_SECONDS = 2.0
_tokens = itertools.count(1)


class TrustedExecutor:
    """Nearly twice the CPU time of `FastExecutor` on a form of seven fields; its events are trusted by every page."""

    name: ExecutorName = "trusted"

    async def perform(self, tab: Tab, steps: Sequence[Step], pages: list[dict[str, Any]]) -> Report:
        """Run one step."""
        return await perform_one(tab, steps[0], pages)


async def perform_one(tab: Tab, step: Step, pages: list[dict[str, Any]]) -> Report:
    """Check in the page, act with real input, read back."""
    request = {"step": step.payload(), "pages": pages, "token": next(_tokens)}
    async with tab.acting(is_real=True):
        before = await tab.call("prepare", request, seconds=ACTION_SECONDS, is_action=True)
        if before.get("result"):
            return Report.read(before, [before["result"]])
        with attribute("real input"):
            await tab.within(_input(tab.page, step, before["point"]), ACTION_SECONDS, is_action=True)
        return await _read_back(tab, request, before)


async def _input(page: Page, step: Step, point: dict[str, float]) -> None:
    verb, value = step.action.verb, step.action.value
    if verb == "press":
        await page.keyboard.press(value or "")
    elif verb in ("fill", "clear"):
        await (page.keyboard.insert_text(value) if value else page.keyboard.press("Delete"))
    else:
        await page.mouse.click(point["x"], point["y"])


async def _read_back(tab: Tab, request: dict[str, Any], before: dict[str, Any]) -> Report:
    """A page that has been replaced meanwhile was left by the action; its last state is the one before."""
    try:
        after = await tab.call("readBackTarget", request, seconds=ACTION_SECONDS, is_action=True)
    except EnvironmentFaultError as fault:
        if not (isinstance(fault.__cause__, PlaywrightError) and "context was destroyed" in str(fault)):
            raise
        after = {"isLeaving": True, "result": {"status": "ok", "note": "ok"}}
    return Report.read({**before, **after}, [after["result"]])
