"""The contract of an environment: tasks, what a policy may read of them, and what becomes of its plans.

Subclass `Environment`, implement `tasks`, `observe` and `run`, and register the class. The members with a default are
for environments that can do better than it. `Session` is the blocking face of every environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from dllm_rl.episodes import Episode, Episodes, Modes, OneTurn, Reply, Situation
from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.records.rollout import Turn
from dllm_rl.records.tasks import SPLITS, Observation, Outcome, Task

OnResult = Callable[[int, Outcome], None]
T = TypeVar("T")


class Environment(ABC):
    """Turns plans into outcomes. All coroutines belong to one event loop, in which many plans run at a time.

    The options that a preset may give are the fields of the constructor's one parameter, `settings`, a frozen
    dataclass; an environment without options takes none.

    Attributes:
        version: Part of the key of results; raise it when the same plan comes to another outcome.
        splits: Names of the splits that there are.
        opens_for_tasks: Whether `tasks` is known only once the environment is open.
        isolations: Names of the ways to keep rollouts apart. Empty if there is only one.
        executors: Names of the ways to carry out actions. Empty if there is only one.
        is_episodic: Whether a task is worked on in several turns; then `begin` is implemented.
    """

    version: ClassVar[int] = 1
    splits: ClassVar[tuple[str, ...]] = SPLITS
    opens_for_tasks: ClassVar[bool] = False
    isolations: ClassVar[tuple[str, ...]] = ()
    executors: ClassVar[tuple[str, ...]] = ()
    is_episodic: ClassVar[bool] = False

    async def open(self) -> None:  # noqa: B027 - nothing to start is a valid answer
        """Start what is needed, such as a server or a browser. An environment may be opened again after `close`."""

    async def close(self) -> None:  # noqa: B027
        """End what was started, and nothing else."""

    async def __aenter__(self) -> Any:
        try:
            await self.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @abstractmethod
    def tasks(self, split: str) -> Sequence[Task]:
        """Return all tasks of a split, in a fixed order."""

    @abstractmethod
    async def observe(self, task: Task) -> Observation:
        """Return what the policy may read beside the task's instruction. Called often: cache what is costly."""

    @abstractmethod
    async def run(self, task: Task, plan: str, *, isolation: str | None = None, executor: str | None = None) -> Outcome:
        """Run a plan once and judge it.

        A rollout that the environment loses is run again inside; lost for good, its outcome's fault says so. It is
        never scored as zero.

        Args:
            task: One of `tasks`.
            plan: The text that the policy wrote.
            isolation: How rollouts are kept apart, by a name of the environment's own; None for its default. An
                environment without such modes ignores it.
            executor: How actions are carried out; otherwise as `isolation`.
        """

    def gold_plan(self, task: Task, observation: Observation) -> str | None:
        """Return a plan that does what the task asks for; None where none is known."""
        return None

    def begin(self, task: Task, modes: Modes) -> Episode:
        """Return an episode of a task, which nothing has been done for yet. Of episodic environments alone."""
        raise NotImplementedError(f"{type(self).__name__} is episodic, so it must implement `begin`.")

    def gold_turn(self, task: Task, turns: Sequence[Turn], observation: Observation) -> str | None:
        """Return what an oracle does next in an episode; None where it stops. By default: the gold plan, once.

        Args:
            task: The task.
            turns: The turns so far.
            observation: The page as it is now.
        """
        return None if turns else self.gold_plan(task, observation)

    async def score(self, task: Task, plan: str) -> float:
        """Score an intermediate plan cheaply, without running it; the gold plan scores 1.

        By default: the share of lines that the plan has in common with the gold plan (Dice coefficient).
        """
        gold = self.gold_plan(task, await self.observe(task))
        if gold is None:
            raise ConfigError(
                f"{type(self).__name__} cannot score unfinished plans: it has no gold plan for {task.id}. "
                "Take an objective without step rewards, or implement `score`."
            )
        return _shared_lines(gold, plan)

    async def score_turn(self, situation: Situation, plan: str) -> float:
        """Score an intermediate turn of an episode cheaply; what the oracle would do there scores 1.

        By default: as `score`, against the oracle's turn.
        """
        gold = self.gold_turn(situation.task, situation.turns, situation.observation)
        if gold is None:
            raise ConfigError(
                f"{type(self).__name__} cannot score unfinished turns: its oracle does nothing at {situation.id}. "
                "Take an objective without step rewards, or implement `score_turn`."
            )
        return _shared_lines(gold, plan)

    @property
    def concurrency(self) -> int:
        """Number of plans, or turns of episodes, that run at a time."""
        return 8

    @property
    def max_open(self) -> int:
        """Episodes of several turns that may be under way at a time."""
        return 16

    async def observe_many(self, tasks: Sequence[Task]) -> list[Observation]:
        """Observe several tasks, in their order."""
        return await limited((self.observe(task) for task in tasks), self.concurrency)

    async def run_many(
        self,
        pairs: Sequence[tuple[Task, str]],
        *,
        isolation: str | None = None,
        executor: str | None = None,
        on_result: OnResult | None = None,
    ) -> list[Outcome]:
        """Run several plans at a time.

        Args:
            pairs: Tasks with the plan of each.
            isolation: As for `run`.
            executor: As for `run`.
            on_result: Called with (index, outcome) as rollouts end.

        Returns:
            Outcomes in the order of `pairs`.
        """

        async def one(index: int, task: Task, plan: str) -> Outcome:
            outcome = await self.run(task, plan, isolation=isolation, executor=executor)
            if on_result:
                on_result(index, outcome)
            return outcome

        runs = (one(index, task, plan) for index, (task, plan) in enumerate(pairs))
        return await limited(runs, self.concurrency)

    async def self_check(self, tasks: Sequence[Task]) -> dict[str, str]:
        """Run the gold plan of each task; return the ids of tasks that it does not solve, with the reason.

        A gold plan that the environment lost in every attempt proves nothing, so its task is among them. A task
        without a gold plan cannot be checked, and is not.
        """
        pages = await self.observe_many(tasks)
        gold = [(task, self.gold_plan(task, page)) for task, page in zip(tasks, pages, strict=True)]
        pairs = [(task, plan) for task, plan in gold if plan is not None]
        outcomes = await self.prove(pairs)
        return {task.id: why for (task, _), outcome in zip(pairs, outcomes, strict=True) if (why := _failure(outcome))}

    async def prove(self, pairs: Sequence[tuple[Task, str]]) -> list[Outcome]:
        """Run gold plans for the self-check. An environment may keep what succeeded for the user's next run."""
        return await self.run_many(pairs)

    def keep_outcomes(self, file: Path) -> None:  # noqa: B027
        """Keep outcomes in this file, and take from it what an equal plan came to before.

        Several processes may be told the same file. By default nothing is kept.
        """

    def forget_failures(self) -> None:  # noqa: B027
        """Forget what failed so far, so that it decides nothing in the next piece of work."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of what runs now and decides results, such as the browser's."""
        return {}

    @property
    def pids(self) -> tuple[int, ...]:
        """Ids of the processes that this environment started and that run now."""
        return ()


def _failure(outcome: Outcome) -> str:
    """Why a gold plan's outcome is not a success; "" where it is one."""
    if not outcome.is_valid:
        return f"its gold plan could not be run: {outcome.fault_reason}"
    if outcome.is_success:
        return ""
    return outcome.fault_reason or "its gold plan does not score 1"


def _shared_lines(gold: str, plan: str) -> float:
    """Share of lines that two plans have in common (Dice coefficient)."""
    wanted, given = Counter(gold.splitlines()), Counter(plan.splitlines())
    return 2 * (wanted & given).total() / max(1, wanted.total() + given.total())


async def limited(coroutines: Iterable[Coroutine[Any, Any, T]], at_a_time: int) -> list[T]:
    """Await coroutines, some at a time. Results are in order; the first exception cancels the others."""
    places = asyncio.Semaphore(at_a_time)

    async def one(coroutine: Coroutine[Any, Any, T]) -> T:
        async with places:
            return await coroutine

    return await all_or_none(one(item) for item in coroutines)


async def all_or_none(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await coroutines at once. Results are in order; the first exception cancels all others and waits for them."""
    futures = [asyncio.ensure_future(item) for item in coroutines]
    try:
        return list(await asyncio.gather(*futures))
    except BaseException:
        for future in futures:
            future.cancel()
        await asyncio.gather(*futures, return_exceptions=True)
        raise


CLOSE_SECONDS = 15.0
E = TypeVar("E", bound=Environment)


class _Episodes:
    """Episodes of several turns for a caller without an event loop."""

    def __init__(self, session: Session[Any], episodes: Sequence[Episode]) -> None:
        self._session, self._episodes = session, episodes

    def start(self) -> list[Reply]:
        return self._together(episode.start() for episode in self._episodes)

    def step(self, plans: Mapping[int, str]) -> dict[int, Reply]:
        steps = (self._episodes[number].step(plan) for number, plan in plans.items())
        return dict(zip(plans, self._together(steps), strict=True))

    def close(self) -> None:
        self._together(episode.close() for episode in self._episodes)

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

    def self_check(self, tasks: Sequence[Task]) -> dict[str, str]:
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
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

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
