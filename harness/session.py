"""The environment for synchronous callers: trainer and command line. The event loop lives in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from dllm_rl.tasks import Outcome, Page, Task
from harness.browser import Isolation
from harness.environment import FormEnvironment, FormSettings, OnResult
from harness.executor import ExecutorName

CLOSE_SECONDS = 15.0
T = TypeVar("T")


class EnvironmentSession:
    """Blocking face of `FormEnvironment`. A context manager; nothing is started before the first call that needs it.

    `tasks` needs no browser; `observe_many` needs one only for sites that were never scouted. KeyboardInterrupt in the
    calling thread cancels what runs, and `close` ends every process that the session started.
    """

    def __init__(self, settings: FormSettings | None = None) -> None:
        self.settings = settings or FormSettings()
        self._environment = FormEnvironment(self.settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> EnvironmentSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def quarantined(self) -> dict[str, str]:
        """Tasks that failed their self-check, with the reason."""
        return dict(self._environment.quarantined)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the browsers that this session runs now."""
        return self._environment.pool.pids

    @property
    def browser_version(self) -> str:
        """Of the Chromium that runs now; "" where none does."""
        return self._environment.pool.version

    def tasks(self, split: str) -> tuple[Task, ...]:
        """All tasks of a split, in a fixed order."""
        return self._environment.tasks(split)

    def observe_many(self, tasks: Sequence[Task]) -> list[Page]:
        """Pages of tasks, in order; scouted once a site."""
        return self._call(self._opened().observe_many(tasks))

    def run_many(
        self,
        pairs: Sequence[tuple[Task, str]],
        *,
        isolation: Isolation | None = None,
        executor: ExecutorName | None = None,
        on_result: OnResult | None = None,
    ) -> list[Outcome]:
        """Outcomes of (task, plan text) pairs, in order. on_result is called from the session's own thread."""
        environment = self._opened()
        return self._call(environment.run_many(pairs, isolation=isolation, executor=executor, on_result=on_result))

    def gold_plan(self, task: Task) -> str:
        """The plan that does what the task asks for."""
        (page,) = self.observe_many([task])
        return self._environment.gold_plan(task, page)

    def score_many(self, pairs: Sequence[tuple[Task, str]]) -> list[float]:
        """Cheap scores of plans, without running them."""
        environment = self._opened()

        async def all_scores() -> list[float]:
            return [await environment.score(task, plan) for task, plan in pairs]

        return self._call(all_scores())

    def self_check(self, tasks: Sequence[Task]) -> list[Task]:
        """Run the gold plans; tasks that do not succeed are quarantined, the others returned."""
        return self._call(self._opened().self_check(tasks))

    def forget_failures(self) -> None:
        """Give sites that kept failing another chance: a new piece of work begins."""
        self._environment.quarantine.forget()

    def close(self) -> None:
        """End browser, server and thread. Safe to call twice, and after KeyboardInterrupt; a later call starts anew."""
        if self._loop is None or self._thread is None:
            return
        environment, loop, thread = self._environment, self._loop, self._thread
        self._environment, self._loop, self._thread = FormEnvironment(self.settings), None, None
        pids = environment.pool.pids
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(environment.close(), loop).result(CLOSE_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CLOSE_SECONDS)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _opened(self) -> FormEnvironment:
        """The environment, with its loop, server and browser running."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="environment", daemon=True)
            self._thread.start()
            self._call(self._environment.open())
        return self._environment

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise
