"""The executor that acts by script, and all executors by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dllm_rl.errors import unknown_name
from harness.browser import Tab
from harness.execute.base import Executor, ExecutorName, Report
from harness.execute.steps import Step
from harness.execute.trusted import TrustedExecutor, perform_one

PAGE_SECONDS = 2.0
STEP_SECONDS = 0.2


class FastExecutor:
    """The whole plan of a page in one call: checks, native setters, the events a browser emits, and reading back.

    Its events are not trusted (`isTrusted` is false), which none of the built-in sites minds; key presses are handed to
    the real keyboard.
    """

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


EXECUTORS: dict[ExecutorName, Executor] = {"fast": FastExecutor(), "trusted": TrustedExecutor()}


def executor_named(name: str) -> Executor:
    """Return the executor of this name. Raises ConfigError, with the nearest known name, if there is none."""
    for known, executor in EXECUTORS.items():
        if name == known:
            return executor
    raise unknown_name("executor", name, EXECUTORS)
