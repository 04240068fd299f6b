"""The blocking face of every environment: a thread with an event loop, for training, evaluation and scripts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from dllm_rl.environment import Environment, OnResult, Unsolved, limited
from dllm_rl.episodes import Episode, Episodes, Modes, OneTurn, Reply, Situation
from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.records.tasks import Observation, Outcome, Task

T = TypeVar("T")
CLOSE_SECONDS = 15.0
END_SECONDS = 5.0
E = TypeVar("E", bound=Environment)


class _Episodes:
    """Episodes of several turns for a caller without an event loop."""

    def __init__(self, session: Session[Any], episodes: Sequence[Episode]) -> None:
        self._session, self._episodes = session, episodes

    def start(self) -> list[Reply]:
        return self._checked(self._together(episode.start() for episode in self._episodes))

    def step(self, plans: Mapping[int, str]) -> dict[int, Reply]:
        steps = (self._episodes[number].step(plan) for number, plan in plans.items())
        return dict(zip(plans, self._checked(self._together(steps)), strict=True))

    def close(self) -> None:
        self._together(episode.close() for episode in self._episodes)

    def _checked(self, replies: list[Reply]) -> list[Reply]:
        """The replies. Without an ending, the turns of an episode would be read as whole plans."""
        if any(reply.observation is None and reply.outcome.ending is None for reply in replies):
            raise ConfigError(
                f"{type(self._session.environment).__name__} answered with neither a page nor an ending. Expected one "
                "of the two: set `ending` in the outcome of an episode's last reply."
            )
        return replies

    def _together(self, coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        return self._session.wait_for(limited(coroutines, self._session.environment.concurrency))


class Session(OneTurn, Generic[E]):
    """Calls an environment and waits for its answers. A context manager; the first call that needs it opens it.

    KeyboardInterrupt in the calling thread cancels what runs. `close` ends every process that the environment started;
    a call after `close` opens the environment again, in the same event loop.
    """

    def __init__(self, environment: E) -> None:
        self.environment = environment
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._is_open = False

    def __enter__(self) -> Session[E]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of what runs now and decides results, such as the browser's."""
        return self.environment.versions

    @property
    def pids(self) -> tuple[int, ...]:
        """Ids of the processes that the environment started and that run now."""
        return self.environment.pids

    def tasks(self, split: str) -> Sequence[Task]:
        """Return all tasks of a split, in a fixed order. Raises ConfigError for a split that does not exist."""
        if split not in self.environment.splits:
            raise unknown_name("split", split, self.environment.splits)
        return (self._opened() if self.environment.opens_for_tasks else self.environment).tasks(split)

    def observe_many(self, tasks: Sequence[Task]) -> list[Observation]:
        """Return what may be read of each task, in order."""
        return self.wait_for(self._opened().observe_many(tasks))

    def run_many(
        self,
        pairs: Sequence[tuple[Task, str]],
        *,
        isolation: str | None = None,
        executor: str | None = None,
        on_result: OnResult | None = None,
    ) -> list[Outcome]:
        """Run (task, plan) pairs; see `Environment.run_many`. on_result is called from the session's own thread."""
        environment = self._opened()
        return self.wait_for(environment.run_many(pairs, isolation=isolation, executor=executor, on_result=on_result))

    @property
    def is_episodic(self) -> bool:
        """Whether a task is worked on in several turns."""
        return self.environment.is_episodic

    @property
    def max_open(self) -> int | None:
        """Episodes of several turns that are under way at a time; None for any number of whole plans."""
        return self.environment.max_open if self.environment.is_episodic else None

    @property
    def max_turns(self) -> int | None:
        """Turns after which the environment ends an episode; None where it does not say."""
        return self.environment.max_turns

    @contextlib.contextmanager
    def episodes(self, tasks: Sequence[Task], modes: Modes) -> Iterator[Episodes]:
        """Episodes of these tasks, which end with the context."""
        environment = self._opened()
        if not environment.is_episodic:
            with super().episodes(tasks, modes) as whole_plans:
                yield whole_plans
            return
        episodes = _Episodes(self, [environment.begin(task, modes) for task in tasks])
        try:
            yield episodes
        finally:
            episodes.close()

    def score_many(self, pairs: Sequence[tuple[Task, str]]) -> list[float]:
        """Score plans cheaply, without running them."""
        environment = self._opened()

        async def all_scores() -> list[float]:
            return [await environment.score(task, plan) for task, plan in pairs]

        return self.wait_for(all_scores())

    def score_turns(self, pairs: Sequence[tuple[Situation, str]]) -> list[float]:
        """Score turns of episodes cheaply, without running them."""
        environment = self._opened()

        async def all_scores() -> list[float]:
            return [await environment.score_turn(situation, plan) for situation, plan in pairs]

        return self.wait_for(all_scores())

    def gold_plan(self, task: Task) -> str:
        """Return the plan that does what the task asks for. Raises ConfigError where none is known."""
        if self.environment.is_episodic:
            raise ConfigError(f"{type(self.environment).__name__} has an oracle of turns and no gold plan. Play it.")
        (page,) = self.observe_many([task])
        plan = self.environment.gold_plan(task, page)
        if plan is None:
            raise ConfigError(f"{type(self.environment).__name__} has no gold plan for {task.id}.")
        return plan

    def self_check(self, tasks: Sequence[Task]) -> dict[str, Unsolved]:
        """Run the gold plans; return the ids of tasks that do not succeed, with the reason."""
        return self.wait_for(self._opened().self_check(tasks))

    def keep_outcomes(self, file: Path) -> None:
        """Share outcomes with every other process that is told the same file, where the environment can."""
        self.environment.keep_outcomes(file)

    def forget_failures(self) -> None:
        """Give what kept failing another chance: a new piece of work begins."""
        self.environment.forget_failures()

    def close(self) -> None:
        """Close the environment and end the thread. Safe to call twice, and after KeyboardInterrupt."""
        if self._loop is None or self._thread is None:
            return
        loop, thread, pids = self._loop, self._thread, self.environment.pids
        self._thread, self._is_open = None, False
        closing = asyncio.run_coroutine_threadsafe(self.environment.close(), loop)
        try:
            with contextlib.suppress(Exception):
                closing.result(CLOSE_SECONDS)
        finally:
            closing.cancel()
            loop.call_soon_threadsafe(loop.stop)
            thread.join(CLOSE_SECONDS)
            end_processes(pids)

    def _opened(self) -> E:
        """The environment, open, with its loop running."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop.run_forever, name="environment", daemon=True)
            self._thread.start()
        if not self._is_open:
            try:
                self.wait_for(self.environment.open())
            except BaseException:
                self.close()
                raise
            self._is_open = True
        return self.environment

    def wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the environment's event loop and return what it returns."""
        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


def end_processes(pids: Sequence[int], seconds: float = END_SECONDS) -> None:
    """End processes that are still there: by asking, since some have others to end, and by force after so long."""
    left, ends = [pid for pid in pids if _signal(pid, signal.SIGTERM)], time.monotonic() + seconds
    while left and time.monotonic() < ends:
        time.sleep(0.05)
        left = [pid for pid in left if _signal(pid, 0)]
    for pid in left:
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> bool:
    """Send a signal, 0 for none. Returns whether the process is there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
