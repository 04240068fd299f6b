"""The isolation mode "arena": several rollouts at a time, each in a frame of its own, on one page of the site's origin.

Frames load and send like pages, without the cost of a tab: two fifths of the CPU time of a new context on full built-in
forms (101 against 250 ms a rollout, `benchmarks/harness.py`). What a frame shares with its neighbours
is guarded: dialogs and the length of the history are kept per frame (`in_page/frame.js`), plans act one at a time, and
a rollout counts only if at its end nobody has stored anything in the origin. Otherwise it is lost to the environment,
which runs it again in a tab of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Route

from harness.browser.faults import EnvironmentFaultError, attribute, is_cut_redirect
from harness.browser.tab import LOAD_SECONDS, Tab
from harness.in_page import IS_UNTOUCHED

NUM_SLOTS = 8
ACTION_SECONDS = 2.0
RECYCLE_ARENA_AFTER = 800
HOST_PATH = "/__dllm_arena"
# Frames are laid out and take clicks like any, but nobody looks at them, and what is transparent is not painted.
_HOST_PAGE = """<!doctype html><title>Arena</title><style>body { margin: 0 }
iframe { position: absolute; left: 0; top: 0; width: 100vw; height: 100vh; border: 0; opacity: 0 }</style>"""
_CLOSE = f"async (slot) => {{ window.__arena.close(slot); return await ({IS_UNTOUCHED})(); }}"


class Arena:
    """The host page with its frames. It closes after `RECYCLE_ARENA_AFTER` rollouts, or after a failure."""

    def __init__(self, host: Tab) -> None:
        self.host = host
        self.has_failed = False
        self.num_rollouts = 0
        self.turn = asyncio.Lock()
        self._origin: str | None = None
        self._opening = asyncio.Lock()
        self._free = list(range(NUM_SLOTS))

    @property
    def can_take(self) -> bool:
        """Whether another rollout may start here."""
        return bool(self._free) and not self.has_failed and self.num_rollouts < RECYCLE_ARENA_AFTER

    @property
    def is_done(self) -> bool:
        """Whether the last rollout has left an arena that takes no more."""
        is_full = len(self._free) < NUM_SLOTS
        return not is_full and not self.can_take

    def take(self) -> ArenaTab:
        """Lend a frame."""
        self.num_rollouts += 1
        return ArenaTab(self, self._free.pop())

    def give_back(self, slot: int) -> None:
        """Take a frame back."""
        self._free.append(slot)

    async def open_at(self, url: str) -> None:
        """Load the host page in the origin of the first rollout; all others must be of that origin."""
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        async with self._opening:
            if self._origin is None:
                await self._load(origin)
                self._origin = origin
        if origin != self._origin:
            raise EnvironmentFaultError(f"load: this arena serves {self._origin}, not {origin}")

    async def _load(self, origin: str) -> None:
        """Answer the host page ourselves, and remove the route again so that later requests are not intercepted."""
        page, address = self.host.page, origin + HOST_PATH

        async def answer(route: Route) -> None:
            await route.fulfill(body=_HOST_PAGE, content_type="text/html")

        await page.route(address, answer)
        await page.goto(address, timeout=self.host.pace.seconds(LOAD_SECONDS) * 1000)
        await page.unroute(address)
        await page.evaluate((files("harness.in_page") / "arena.js").read_text())


class ArenaTab(Tab):
    """One frame of an arena, as a tab."""

    def __init__(self, arena: Arena, slot: int) -> None:
        host = arena.host
        self.context, self.page, self.pace = host.context, host.page, host.pace
        self.arena, self.slot = arena, slot
        self.num_rollouts = 1
        self.dialogs: list[str] = []
        self.foreign = host.foreign
        self._after = 0
        self._is_expecting = False

    async def goto(self, url: str) -> None:
        """Load a rollout's start page in the frame."""
        started = time.perf_counter()
        with attribute("load"):
            await self.arena.open_at(url)
            document = await self._within_load("open", [self.slot, url])
        if document["isError"] or document["status"] >= 400 or is_cut_redirect(document["status"]):
            raise EnvironmentFaultError(f"load: the site answered {document['status'] or 'nothing'} for its start page")
        self.pace.saw_load(time.perf_counter() - started)

    async def call(self, function: str, argument: Any = None, *, seconds: float, is_action: bool = False) -> Any:
        """Call a function of our script in the frame."""
        with attribute(function):
            work = self.page.evaluate(
                "([slot, name, argument]) => window.__arena.call(slot, name, argument)", [self.slot, function, argument]
            )
            answer = await self.within(work, seconds, is_action=is_action)
        self.dialogs += answer["dialogs"]
        if self._is_expecting:
            self._after, self._is_expecting = answer["numDocuments"], False
        return answer["value"]

    @asynccontextmanager
    async def acting(self, *, is_real: bool) -> AsyncIterator[None]:
        """One plan acts at a time, since focus, keyboard and mouse are the page's."""
        async with self.arena.turn:
            if self.arena.has_failed:
                raise EnvironmentFaultError("another rollout in this arena failed")
            if is_real:
                with attribute("arena"):
                    raised = self.page.evaluate("slot => window.__arena.raise(slot)", self.slot)
                    await self.within(raised, ACTION_SECONDS, is_action=False)
            yield

    def expect_load(self) -> None:
        """Forget earlier loads: what counts comes after the next call."""
        self._is_expecting = True

    async def loaded(self, *, is_injected: Callable[[], bool] = lambda: False) -> bool:
        """Wait for the document that an action leads to; the pages of an arena always answer with one."""
        started = time.perf_counter()
        with attribute("navigation"):
            document = await self._within_load("loaded", [self.slot, self._after])
        self.pace.saw_load(time.perf_counter() - started)
        if document["isError"]:
            raise EnvironmentFaultError("navigation: the connection was refused or reset")
        if is_cut_redirect(document["status"]) or (document["status"] >= 500 and not is_injected()):
            raise EnvironmentFaultError(f"navigation: the site answered {document['status']}")
        return True

    async def _within_load(self, function: str, arguments: list[Any]) -> dict[str, Any]:
        work = self.page.evaluate(f"arguments => window.__arena.{function}(...arguments)", arguments)
        try:
            return await asyncio.wait_for(work, self.pace.seconds(LOAD_SECONDS))
        except TimeoutError:
            raise EnvironmentFaultError("navigation: deadline passed while the page was loading") from None

    async def reset(self) -> None:
        """Drop the frame. Raises EnvironmentFaultError where anybody has stored anything in the arena meanwhile."""
        with attribute("reset"):
            async with asyncio.timeout(self.pace.seconds(2.0)):
                is_untouched = await self.page.evaluate(_CLOSE, self.slot)
        if not is_untouched or self.arena.has_failed:
            raise EnvironmentFaultError("reset: a site that stores something shares it in an arena; it needs a tab")
        self.arena.give_back(self.slot)

    async def close(self) -> None:
        """Mark the arena as failed: it closes with the last rollout in it."""
        self.arena.has_failed = True
        self.arena.give_back(self.slot)
