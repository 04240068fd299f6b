"""One page of the browser as a rollout uses it: loads, calls into the page, and every wait under a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

from playwright.async_api import BrowserContext, Dialog, Page, Response
from playwright.async_api import Error as PlaywrightError

from harness.faults import AgentDeadlineError, EnvironmentFaultError, attribute, is_environment
from harness.in_page import CANARY_GONE, STORES_CLEARED, init_script
from harness.pace import Pace

LOAD_SECONDS = 5.0
PROBE_SECONDS = 0.5
MAX_ROUNDS = 3
CONTEXT_OPTIONS: dict[str, Any] = {
    "accept_downloads": False,
    "service_workers": "block",
    "permissions": [],
    "locale": "en-US",
    "timezone_id": "UTC",
    "viewport": {"width": 1280, "height": 720},
    "device_scale_factor": 1,
    "reduced_motion": "reduce",
}


class Tab:
    """A page in a context of its own. `num_rollouts` counts what it has served, for recycling."""

    def __init__(self, context: BrowserContext, page: Page, pace: Pace) -> None:
        self.context, self.page, self.pace = context, page, pace
        self.num_rollouts = 0
        self.dialogs: list[str] = []
        self._is_reused = False
        self._has_loaded = asyncio.Event()
        self._last_status = 200
        page.on("domcontentloaded", lambda _: self._has_loaded.set())
        page.on("crash", lambda _: self._has_loaded.set())
        page.on("response", self._see_response)
        page.on("dialog", self._answer_dialog)

    @classmethod
    async def open(cls, browser: Any, pace: Pace) -> Tab:
        """Open a fresh context with one page."""
        context = await browser.new_context(**CONTEXT_OPTIONS)
        await context.add_init_script(init_script())
        return cls(context, await context.new_page(), pace)

    async def close(self) -> None:
        """Close the context with everything in it; a context that is gone already is closed."""
        try:
            await asyncio.wait_for(self.context.close(), self.pace.seconds(2.0))
        except Exception as error:
            if not is_environment(error):
                raise

    async def goto(self, url: str) -> None:
        """Load a rollout's start page. Raises EnvironmentFaultError for a failed load or a reset that did not hold."""
        started = time.perf_counter()
        with attribute("load"):
            timeout = self.pace.seconds(LOAD_SECONDS) * 1000
            response = await self.page.goto(url, wait_until="domcontentloaded", timeout=timeout)
            if response is None or response.status >= 400:
                status = response.status if response else "no response"
                raise EnvironmentFaultError(f"load: the site answered {status} for its start page")
            if self._is_reused and not await self.page.evaluate(CANARY_GONE):
                raise EnvironmentFaultError("load: the storage of an earlier rollout was still there")
        self.pace.saw_load(time.perf_counter() - started)
        self._has_loaded.clear()

    async def call(self, function: str, argument: Any = None, *, seconds: float, is_action: bool = False) -> Any:
        """Call a function of our script in the page. The argument is data and is never spliced into code.

        is_action: the call does what a plan asked for, so that a deadline that passes on a live page is the plan's.
        """
        code = f"(argument) => window.__dllm.{function}(argument)"
        with attribute(function):
            return await self.within(self.page.evaluate(code, argument), seconds, is_action=is_action)

    async def within(self, awaitable: Awaitable[Any], seconds: float, *, is_action: bool) -> Any:
        """Await under a deadline. When it passes, the page is probed before anybody is blamed.

        A page that answers the probe gets the same time again, up to `MAX_ROUNDS` times, since a loaded machine is slow
        in starts; after that an action's deadline is the agent's. All else is the environment's.
        """
        work = asyncio.ensure_future(awaitable)
        try:
            for _ in range(MAX_ROUNDS):
                await asyncio.wait({work}, timeout=self.pace.seconds(seconds))
                if work.done():
                    return work.result()
                if not await self.is_responsive():
                    raise EnvironmentFaultError("the page no longer answers")
            reason = f"the page did not react within {MAX_ROUNDS} x {seconds:g} s"
            raise AgentDeadlineError(reason) if is_action else EnvironmentFaultError(reason)
        finally:
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    async def is_responsive(self) -> bool:
        """Whether the page answers an evaluate at all."""
        try:
            return await asyncio.wait_for(self.page.evaluate("true"), self.pace.seconds(PROBE_SECONDS))
        except Exception as error:
            if is_environment(error):
                return False
            raise

    def expect_load(self) -> None:
        """Forget earlier loads; to be called before an action that may navigate."""
        self._has_loaded.clear()

    async def loaded(self) -> None:
        """Wait for the document that an action leads to. Raises EnvironmentFaultError for a 5xx or a failed load."""
        started = time.perf_counter()
        try:
            await asyncio.wait_for(self._has_loaded.wait(), self.pace.seconds(LOAD_SECONDS))
        except TimeoutError:
            raise EnvironmentFaultError("navigation: deadline passed while the page was loading") from None
        self.pace.saw_load(time.perf_counter() - started)
        if self._last_status >= 500:
            raise EnvironmentFaultError(f"navigation: the site answered {self._last_status}")
        if self.page.url.startswith("chrome-error:"):
            raise EnvironmentFaultError("navigation: the connection was refused or reset")

    async def reset(self) -> None:
        """Make the tab fit for another rollout. Raises EnvironmentFaultError where the tab must be thrown away."""
        try:
            async with asyncio.timeout(self.pace.seconds(2.0)):
                for popup in self.context.pages:
                    if popup is not self.page:
                        await popup.close()
                await self.page.evaluate(STORES_CLEARED)
                await self.context.clear_cookies()
        except (PlaywrightError, TimeoutError) as error:
            raise EnvironmentFaultError(f"reset: {error}") from error
        self.dialogs.clear()
        self._is_reused = True

    def _see_response(self, response: Response) -> None:
        if response.request.is_navigation_request() and response.frame == self.page.main_frame:
            self._last_status = response.status

    async def _answer_dialog(self, dialog: Dialog) -> None:
        """Alerts and questions are agreed to, prompts get no text; what they said is part of the outcome."""
        self.dialogs.append(f"{dialog.type}: {dialog.message}")
        try:
            await (dialog.dismiss() if dialog.type == "prompt" else dialog.accept())
        except Exception as error:
            if not is_environment(error):
                raise
