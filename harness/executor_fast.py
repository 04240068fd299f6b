"""The whole plan of a page in one call: checks, native setters, the events a browser emits, and reading back.

Its events are not trusted (`isTrusted` is false), which none of the built-in sites minds; key presses are handed to the
real keyboard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.executor import ExecutorName, Report
from harness.executor_trusted import perform_one
from harness.steps import Step
from harness.tab import Tab

PAGE_SECONDS = 2.0
STEP_SECONDS = 0.2


class FastExecutor:
    """One round trip a page instead of several an action."""

    name: ExecutorName = "fast"

    async def perform(self, tab: Tab, steps: Sequence[Step], pages: list[dict[str, Any]]) -> Report:
        """Run all steps up to the first that leaves the page, or up to a key press."""
        if steps[0].action.verb == "press" and steps[0].control is not None:
            return await perform_one(tab, steps[0], pages)
        request = {"steps": [step.payload() for step in steps], "pages": pages}
        seconds = PAGE_SECONDS + STEP_SECONDS * len(steps)
        async with tab.acting(is_real=False):
            record = await tab.call("perform", request, seconds=seconds, is_action=True)
        return Report.read(record, record["results"])
