"""One page of the browser as a rollout uses it: loads, calls into the page, every wait under a deadline, and traces."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, CDPSession, Dialog, Page, Request, Response, Route
from playwright.async_api import Error as PlaywrightError

from dllm_rl.records.tasks import Outcome, Task
from harness.browser.faults import (
    AgentDeadlineError,
    AgentLeftError,
    EnvironmentFaultError,
    Pace,
    attribute,
    is_cut_redirect,
    is_environment,
)
from harness.in_page import LEAVE, init_script

LOAD_SECONDS = 5.0
PROBE_SECONDS = 0.5
# How soon a wait for a document asks whether there still is a browser.
NOTICE_SECONDS = 0.3
MAX_ROUNDS = 3
# Answers at which a browser keeps the document that it shows.
WITHOUT_CONTENT = frozenset({204, 205})
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
FOREIGN = re.compile(
    r"^(?!(https?|wss?)://(127\.0\.0\.1|([a-z0-9-]+\.)?localhost)(:\d+)?/)(?!about:|data:|blob:)", re.I
)
_hosts = itertools.count(1)


def outside_of(port: int) -> re.Pattern[str]:
    """Addresses other than those of `*.localhost` at this port."""
    return re.compile(rf"^(?!(https?|wss?)://[a-z0-9-]+\.localhost:{port}/)(?!about:|data:|blob:)", re.I)


class Tab:
    """A page in a context of its own.

    Attributes:
        num_rollouts: Rollouts served so far, for recycling.
        dialogs: Texts of the dialogs that the page opened.
        foreign: Addresses outside of the site that the page asked for and did not get, where requests are intercepted.
    """

    def __init__(self, context: BrowserContext, page: Page, pace: Pace, is_foreign: re.Pattern[str] = FOREIGN) -> None:
        self.context, self.page, self.pace = context, page, pace
        self._is_foreign = is_foreign
        self.num_rollouts = 0
        self.dialogs: list[str] = []
        self.foreign: list[str] = []
        self._session: CDPSession | None = None
        self._has_loaded = asyncio.Event()
        self._is_staying = self._is_asked = False
        self._last_status = 200
        self._is_answer = False
        self._answers: set[int] = set()
        page.on("domcontentloaded", lambda _: self._has_loaded.set())
        page.on("crash", lambda _: self._has_loaded.set())
        page.on("request", self._see_request)
        page.on("requestfailed", self._see_failure)
        page.on("response", self._see_response)
        page.on("download", lambda _: self._stay())
        page.on("dialog", self._answer_dialog)

    @classmethod
    async def open(
        cls,
        browser: Any,
        pace: Pace,
        *,
        is_guarded: bool = False,
        is_used_again: bool = True,
        foreign: re.Pattern[str] = FOREIGN,
    ) -> Tab:
        """Open a fresh context with one page.

        Args:
            browser: The browser.
            pace: Scale of all deadlines.
            is_guarded: Whether requests are intercepted and foreign ones refused.
            is_used_again: Whether the tab serves several rollouts, so that leftovers must be found at the next load.
            foreign: What is outside of the site.
        """
        context = await browser.new_context(**CONTEXT_OPTIONS)
        try:
            await context.add_init_script(init_script(is_used_again=is_used_again))
            tab = cls(context, await context.new_page(), pace, foreign)
            context.on("page", tab._close_popup)
            if is_guarded:
                await context.route(foreign, tab._refuse)
        except BaseException:
            await _closed(context, pace)
            raise
        return tab

    async def close(self) -> None:
        """Close the context with everything in it; a context that is gone already is closed."""
        await _closed(self.context, self.pace)

    async def goto(self, url: str) -> None:
        """Load a rollout's start page. Raises EnvironmentFaultError for a failed load or a reset that did not hold."""
        started = time.perf_counter()
        with attribute("load"):
            timeout = self.pace.seconds(LOAD_SECONDS) * 1000
            response = await self.page.goto(url, wait_until="domcontentloaded", timeout=timeout)
            if response is None or response.status >= 400 or is_cut_redirect(response.status):
                status = response.status if response else "no response"
                raise EnvironmentFaultError(f"load: the site answered {status} for its start page")
            if self.num_rollouts > 1:
                await self._verify_reset(response)
        self.pace.saw_load(time.perf_counter() - started)
        self._has_loaded.clear()

    @asynccontextmanager
    async def acting(self, *, is_real: bool) -> AsyncIterator[None]:
        """Hold the page during an action.

        Args:
            is_real: Whether the action uses the mouse and keyboard, which a page has once.
        """
        yield

    async def call(self, function: str, argument: Any = None, *, seconds: float, is_action: bool = False) -> Any:
        """Call a function of our script in the page.

        Args:
            function: Its name.
            argument: Its argument: data, which is never spliced into code.
            seconds: Deadline on an idle machine.
            is_action: Whether the call does what a plan asked for, so that a deadline that passes on a live page is
                attributed to the plan.
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
        self._is_staying = self._is_asked = self._is_answer = False

    async def loaded(self, *, is_injected: Callable[[], bool] = lambda: False) -> bool:
        """Wait for the document that an action leads to.

        Args:
            is_injected: Whether the server says that its answer was a difficulty of the task's own.

        Returns:
            Whether a document came. None comes where the answer is a file or has no content, or where nothing was
            requested.

        Raises:
            EnvironmentFaultError: The answer was a 5xx, or the load failed.
            AgentLeftError: The action led out of the site.
        """
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self.pace.seconds(LOAD_SECONDS)):
                await self._wait_for_document()
        except TimeoutError:
            if not self._is_asked and await self.is_responsive():
                return False
            raise EnvironmentFaultError("navigation: deadline passed while the page was loading") from None
        if self._is_staying:
            return False
        self.pace.saw_load(time.perf_counter() - started)
        is_unreached = self.page.url.startswith("chrome-error:")
        if is_unreached and self._is_foreign.match(await self._unreached()):
            raise AgentLeftError
        if is_cut_redirect(self._last_status) or (self._last_status >= 500 and not is_injected()):
            raise EnvironmentFaultError(f"navigation: the site answered {self._last_status}")
        if is_unreached:
            raise EnvironmentFaultError("navigation: the connection was refused or reset")
        return True

    async def _unreached(self) -> str:
        """Return the address whose load ended in an error page."""
        return (await self._history())[-1]["url"]

    async def note_answer(self) -> None:
        """Remember the document that has come where it answers what was posted; of turns, which may go back."""
        if self._is_answer:
            self._answers.add((await self._history())[-1]["id"])

    async def leads_back_to_answer(self) -> bool:
        """Whether the document before this one answers what was posted: to show it again, it would be posted again."""
        return bool(self._answers) and (await self._history())[-2]["id"] in self._answers

    async def _history(self) -> list[dict[str, Any]]:
        """The documents up to the present one."""
        with attribute("navigation"):
            self._session = self._session or await self.context.new_cdp_session(self.page)
            history = await self._session.send("Page.getNavigationHistory")
        return history["entries"][: history["currentIndex"] + 1]

    async def _wait_for_document(self) -> None:
        """Wait without a deadline. A browser or driver that is gone meanwhile does not say so here, and is asked."""
        while True:
            try:
                await asyncio.wait_for(self._has_loaded.wait(), NOTICE_SECONDS)
                return
            except TimeoutError:
                with attribute("navigation"):
                    await self.context.cookies()

    async def reset(self) -> None:
        """Prepare the tab for another rollout. Raises EnvironmentFaultError if the tab must be closed instead.

        That every store is empty is verified at the next load, before any script of the page (`goto`), so that what
        might still write after this is found.
        """
        try:
            async with asyncio.timeout(self.pace.seconds(2.0)):
                if not await self.page.evaluate(LEAVE):
                    raise EnvironmentFaultError(
                        "reset: databases or files are left, and only a new context can remove them"
                    )
                self._session = self._session or await self.context.new_cdp_session(self.page)
                await asyncio.gather(self.context.clear_cookies(), self._session.send("Page.resetNavigationHistory"))
        except (PlaywrightError, TimeoutError) as error:
            raise EnvironmentFaultError(f"reset: {error}") from error
        self.dialogs.clear()
        self._answers.clear()

    async def _verify_reset(self, response: Response) -> None:
        """Cookies that came with the page itself are its own."""
        own = {"cookies"} if "set-cookie" in response.headers else set()
        stored = [name for name in await self.page.evaluate("window.__dllm.storedAtStart()") if name not in own]
        if stored:
            raise EnvironmentFaultError(f"load: an earlier rollout had left {', '.join(stored)}")

    def _is_document(self, request: Request) -> bool:
        return request.is_navigation_request() and request.frame == self.page.main_frame

    def _see_request(self, request: Request) -> None:
        self._is_asked = self._is_asked or self._is_document(request)

    def _see_failure(self, request: Request) -> None:
        if self._is_document(request):
            self._is_asked = False

    def _see_response(self, response: Response) -> None:
        if self._is_document(response.request):
            self._last_status = response.status
            self._is_answer = response.request.method == "POST"
            if response.status in WITHOUT_CONTENT:
                self._stay()

    def _stay(self) -> None:
        self._is_staying = True
        self._has_loaded.set()

    async def _answer_dialog(self, dialog: Dialog) -> None:
        """Accept alerts and questions and dismiss prompts. Their texts are part of the outcome."""
        self.dialogs.append(f"{dialog.type}: {dialog.message}")
        await _unless_gone(dialog.dismiss() if dialog.type == "prompt" else dialog.accept())

    async def _close_popup(self, popup: Page) -> None:
        """Close further windows at once: a plan has one window."""
        await _unless_gone(popup.close())

    async def _refuse(self, route: Route) -> None:
        self.foreign.append(route.request.url)
        await _unless_gone(route.abort("addressunreachable"))


class OriginTab(Tab):
    """A tab in which every rollout has a host name of its own, so that no store of an earlier one can be reached."""

    async def goto(self, url: str) -> None:
        """Load the start page under a name that was never used; `*.localhost` is this machine."""
        await super().goto(url.replace("127.0.0.1", f"e{next(_hosts)}.localhost", 1))


async def _closed(context: BrowserContext, pace: Pace) -> None:
    if context.browser is not None and not context.browser.is_connected():
        return
    await _unless_gone(asyncio.wait_for(context.close(), pace.seconds(2.0)))


async def _unless_gone(awaitable: Awaitable[Any]) -> None:
    """Await the answer to an event of a page. A page that is gone needs no answer."""
    try:
        await awaitable
    except Exception as error:
        if not is_environment(error):
            raise


_OURS = re.compile(r"-\d{4}T\d{6}-\d+-\d+\.zip$")


@dataclass(slots=True, kw_only=True)
class TraceRecorder:
    """Traces and last screenshots of failed rollouts. `playwright show-trace <file>` shows a trace step by step.

    Attributes:
        folder: Where the files are written.
        keep: Number of rollouts that stay on disk.
        keeps_all: Whether successful rollouts are kept too.
        written: The files, oldest first.
    """

    folder: Path
    keep: int = 20
    keeps_all: bool = False
    written: list[tuple[Path, Path]] = field(default_factory=list)
    _number: int = 0
    _names: str = field(default_factory=lambda: f"{time.strftime('%m%dT%H%M%S')}-{os.getpid()}")

    async def start(self, tab: Tab) -> None:
        """Begin to record what happens in the tab's context."""
        with attribute("trace"):
            await tab.context.tracing.start(screenshots=True, snapshots=True)

    async def stop(self, tab: Tab, task: Task, outcome: Outcome) -> None:
        """End the recording, and keep it if the rollout failed or all are kept."""
        self._number += 1
        name = re.sub(r"[^\w.-]+", "_", f"{task.id}-{self._names}-{self._number}")
        trace, picture = self.folder / f"{name}.zip", self.folder / f"{name}.png"
        is_kept = self.keeps_all or not outcome.is_success
        with attribute("trace"):
            if is_kept:
                self.folder.mkdir(parents=True, exist_ok=True)
                await tab.page.screenshot(path=picture, full_page=True)
            await tab.context.tracing.stop(path=trace if is_kept else None)
        if is_kept:
            self.written.append((trace, picture))
            self._drop_old()

    def _drop_old(self) -> None:
        """Keep the newest recordings in the folder, including those of earlier sessions."""
        ours = (path for path in self.folder.glob("*.zip") if _OURS.search(path.name))
        traces = sorted(ours, key=lambda path: path.stat().st_mtime_ns)
        for trace in traces[: -self.keep]:
            trace.unlink(missing_ok=True)
            trace.with_suffix(".png").unlink(missing_ok=True)
        self.written = [pair for pair in self.written if pair[0] not in traces[: -self.keep]]
