"""The browser pool: launches Chromium, hands out tabs by isolation mode, recycles, recovers, ends its own processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

from playwright.async_api import Browser, Playwright

from dllm_rl.errors import unknown_name
from harness.browser import chromium
from harness.browser.arena import Arena, ArenaTab
from harness.browser.faults import EnvironmentFaultError, Pace, attribute, usable_cores
from harness.browser.tab import FOREIGN, NOTICE_SECONDS, OriginTab, Tab, outside_of

Isolation = Literal["context", "origin", "page", "arena"]
# Where rollouts a second stop growing (`benchmarks.harness --concurrency 1 2 3 4 6 8 12`).
PLACES_A_CORE: dict[Isolation, int] = {"context": 2, "origin": 2, "page": 2, "arena": 4}
# Limit of one browser on any number of cores: a context takes some 25 MB, and one browser process serves all.
MAX_PLACES = 32
RECYCLE_PAGE_AFTER = 200
RECYCLE_BROWSER_AFTER = 4000
OPEN_SECONDS = 10.0
NUM_ATTEMPTS = 3
T = TypeVar("T")


def isolation_named(name: str) -> Isolation:
    """Return the isolation mode of this name. Raises ConfigError, with the nearest known name, if there is none."""
    for mode in get_args(Isolation):
        if name == mode:
            return mode
    raise unknown_name("isolation", name, get_args(Isolation))


_num_processes = 1


def share_cores(num_processes: int) -> None:
    """Count on a share of the machine's cores: so many processes with browsers of their own divide them."""
    global _num_processes
    _num_processes = num_processes


def usual_places(isolation: Isolation) -> int:
    """Rollouts at a time that were measured to be best in this mode on this process's share of the machine's cores."""
    return min(MAX_PLACES, PLACES_A_CORE[isolation] * max(1, usable_cores() // _num_processes))


@dataclass(frozen=True, slots=True)
class Attempt:
    """One of the attempts at a rollout, counted from 1."""

    number: int

    @property
    def is_fresh(self) -> bool:
        """Whether an earlier one was lost, so that this one should use no tab that was used before."""
        return self.number > 1

    @property
    def is_last(self) -> bool:
        """Whether what this one loses is lost."""
        return self.number == NUM_ATTEMPTS


@dataclass(slots=True, eq=False)
class _Running:
    """One browser process with its idle tabs. A retired browser takes no new rollout and is closed with its last."""

    browser: Browser
    pid: int
    idle: dict[Isolation, list[Tab]] = field(default_factory=lambda: {"page": [], "origin": []})
    arenas: list[Arena] = field(default_factory=list)
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    generation: int = 0
    num_active: int = 0
    num_rollouts: int = 0
    is_retired: bool = False


class BrowserPool:
    """Tabs for rollouts. All coroutines belong to one event loop.

    The isolation mode of a rollout says what it shares with others:

    - "context": a new context for every rollout, whose requests can be intercepted.
    - "page": a tab is used again after cookies, storage and history were cleared, which is verified at the next load.
      It is recycled after `recycle_after` rollouts, since its process grows.
    - "origin": like "page", under a new host name for every rollout.
    - "arena": several rollouts in frames of one page; see `harness.browser.arena`.

    Args:
        recycle_after: Rollouts after which a tab is closed.
        arguments: Further launch arguments of Chromium.
        is_headful: Whether the browser has a window.
    """

    def __init__(
        self, *, recycle_after: int = RECYCLE_PAGE_AFTER, arguments: Sequence[str] = (), is_headful: bool = False
    ) -> None:
        self.pace = Pace()
        self.recycle_after = recycle_after
        self.arguments = tuple(arguments)
        self.is_headful = is_headful
        self.foreign = FOREIGN
        self._site_arguments: list[str] = []
        self._playwright: Playwright | None = None
        self._current: _Running | None = None
        self._all: list[_Running] = []
        self._lock = asyncio.Lock()
        self._num_launched = 0

    async def open(self) -> None:
        """Launch the browser. Raises BrowserMissingError where there is none."""
        await self._running()

    def keep_to(self, port: int) -> None:
        """Let the browsers that are launched from now on reach `*.localhost` at this port and nothing else."""
        self._site_arguments = chromium.only_port(port)
        self.foreign = outside_of(port)

    async def close(self) -> None:
        """End every browser that this pool started, and the driver."""
        for running in list(self._all):
            await self._end(running)
        self._current = None
        if self._playwright:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._playwright.stop(), 5)
        self._playwright = None

    @property
    def version(self) -> str:
        """Version of the running Chromium; "" while none runs."""
        return self._current.browser.version if self._current else ""

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of our browsers."""
        return tuple(running.pid for running in self._all)

    @property
    def num_contexts(self) -> int:
        """Contexts that are open now, in all browsers."""
        return sum(len(running.browser.contexts) for running in self._all)

    @asynccontextmanager
    async def tab(self, isolation: Isolation, *, is_fresh: bool = False, is_guarded: bool = True) -> AsyncIterator[Tab]:
        """Lend a tab for one rollout. A failure inside closes the tab.

        Args:
            isolation: Isolation mode of the rollout.
            is_fresh: Whether the tab must not have been used before.
            is_guarded: Whether requests are intercepted too ("context" only). It costs a fifth of the CPU time, and the
                launch arguments let nothing out that it would find.
        """
        with attribute("browser"):
            running = await self._running()
            running.num_active += 1
        tab: Tab | None = None
        is_kept = False
        try:
            with attribute("browser"):
                tab = await self._take(running, isolation, is_fresh, is_guarded)
            yield tab
            is_kept = await self._give_back(running, tab, isolation)
        except EnvironmentFaultError as fault:
            fault.generation = running.generation
            raise
        finally:
            running.num_active -= 1
            if tab and not is_kept:
                await tab.close()
            await _close_done(running)
            if running.is_retired and not running.num_active:
                await self._end(running)

    async def attempts(self, once: Callable[[Attempt], Awaitable[T]]) -> T:
        """Return what `once` returns, the first time that the environment does not lose it.

        The second attempt should use no tab that was used before. The last has a new browser, if the one that lost the
        attempt before it is still in use.

        Raises:
            EnvironmentFaultError: The environment lost all of them; it is the last one's.
        """
        attempt, generation = Attempt(1), None
        while True:
            if attempt.is_last:
                self.retire(generation)
            try:
                return await once(attempt)
            except EnvironmentFaultError as fault:
                if attempt.is_last:
                    raise
                attempt, generation = Attempt(attempt.number + 1), fault.generation

    def retire(self, generation: int | None = None) -> None:
        """Give the next rollout a new browser. The present one ends with the last rollout in it.

        Args:
            generation: The browser that is meant, as its faults name it; a later one stays. None for the present one.
        """
        if self._current and generation in (None, self._current.generation):
            self._current.is_retired = True
            self._current = None

    async def _take(self, running: _Running, isolation: Isolation, is_fresh: bool, is_guarded: bool) -> Tab:
        running.num_rollouts += 1
        if running.num_rollouts >= RECYCLE_BROWSER_AFTER and running is self._current:
            self.retire()
        if isolation == "arena":
            return await self._take_frame(running)
        idle = running.idle.get(isolation, [])
        tab = idle.pop() if idle and not is_fresh else await self._open(running, isolation, is_guarded)
        tab.num_rollouts += 1
        return tab

    async def _take_frame(self, running: _Running) -> ArenaTab:
        async with running.opening:
            arena = next((item for item in running.arenas if item.can_take), None)
            if arena is None:
                arena = Arena(await self._open(running, "arena", False))
                running.arenas.append(arena)
            return arena.take()

    async def _open(self, running: _Running, isolation: Isolation, is_guarded: bool) -> Tab:
        kind = OriginTab if isolation == "origin" else Tab
        is_guarded = is_guarded and isolation == "context"
        is_used_again = isolation in running.idle
        opening = kind.open(
            running.browser, self.pace, is_guarded=is_guarded, is_used_again=is_used_again, foreign=self.foreign
        )
        return await _while_alive(running.browser, opening, self.pace.seconds(OPEN_SECONDS))

    async def _give_back(self, running: _Running, tab: Tab, isolation: Isolation) -> bool:
        """Keep the tab if it can be reset for another rollout. An arena may reject the rollout here."""
        if isinstance(tab, ArenaTab):
            await tab.reset()
            return True
        idle = running.idle.get(isolation)
        if idle is None or tab.num_rollouts >= self.recycle_after or running.is_retired:
            return False
        try:
            await tab.reset()
        except EnvironmentFaultError:
            return False
        idle.append(tab)
        return True

    async def _running(self) -> _Running:
        async with self._lock:
            if self._current and not self._current.browser.is_connected():
                self.retire()
            for running in [item for item in self._all if item.is_retired and not item.num_active]:
                await self._end(running)
            if self._current is None:
                self._current = await self._launch()
            return self._current

    async def _launch(self) -> _Running:
        """Launch a browser; a driver that died with it is started anew."""
        for is_last in (False, True):
            try:
                if self._playwright is None:
                    self._playwright = await chromium.start_driver()
                arguments = (*self.arguments, *self._site_arguments)
                browser = await asyncio.wait_for(
                    chromium.launch(self._playwright, arguments, is_headful=self.is_headful), self.pace.seconds(30)
                )
                self._num_launched += 1
                running = _Running(browser=browser, pid=await _browser_pid(browser), generation=self._num_launched)
                self._all.append(running)
                return running
            except Exception as error:
                is_driver_gone = any(text in str(error) for text in ("Connection closed", "has been closed"))
                if is_last or not is_driver_gone:
                    raise
                self._playwright = None
        raise AssertionError("unreachable")

    async def _end(self, running: _Running) -> None:
        if running not in self._all:
            return
        self._all.remove(running)
        if running is self._current:
            self._current = None
        with contextlib.suppress(Exception):
            await asyncio.wait_for(running.browser.close(), 5)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGKILL)


async def _while_alive(browser: Browser, work: Coroutine[Any, Any, T], seconds: float) -> T:
    """Await under a deadline while the browser is connected. Nothing ends the opening of a page when a browser dies."""
    future = asyncio.ensure_future(work)
    ends = time.monotonic() + seconds
    try:
        while time.monotonic() < ends:
            await asyncio.wait({future}, timeout=NOTICE_SECONDS)
            if future.done():
                return future.result()
            if not browser.is_connected():
                raise EnvironmentFaultError("browser: it ended while a page was being opened")
        raise EnvironmentFaultError(f"browser: no page could be opened within {seconds:.0f} s")
    finally:
        if not future.done():
            future.cancel()
            await asyncio.gather(future, return_exceptions=True)


async def _close_done(running: _Running) -> None:
    """Close arenas that take no more, with the last rollout in them."""
    for arena in [item for item in running.arenas if item.is_done]:
        running.arenas.remove(arena)
        await arena.host.close()


async def _browser_pid(browser: Browser) -> int:
    session = await browser.new_browser_cdp_session()
    processes = (await session.send("SystemInfo.getProcessInfo"))["processInfo"]
    await session.detach()
    return next(process["id"] for process in processes if process["type"] == "browser")
