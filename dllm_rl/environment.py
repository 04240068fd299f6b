"""The contract of an environment: tasks, what a policy may read of them, and what becomes of its plans.

Subclass `Environment`, implement `tasks`, `observe` and `run`, and register the class. The members with a default are
for environments that can do better than it. `dllm_rl.session.Session` is the blocking face of every
environment.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from dllm_rl.episodes import Episode, Modes, Situation
from dllm_rl.errors import ConfigError
from dllm_rl.records.rollout import Turn
from dllm_rl.records.tasks import SPLITS, Observation, Outcome, Task

OnResult = Callable[[int, Outcome], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsolved:
    """Why a task does not prove itself.

    Attributes:
        reason: In words.
        is_lost: Whether the environment lost every attempt, which says nothing of the task.
    """

    reason: str
    is_lost: bool = False


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
        has_return: Whether outcomes say what the environment itself paid, in the field `RETURN`.
    """

    version: ClassVar[int] = 1
    splits: ClassVar[tuple[str, ...]] = SPLITS
    opens_for_tasks: ClassVar[bool] = False
    isolations: ClassVar[tuple[str, ...]] = ()
    executors: ClassVar[tuple[str, ...]] = ()
    is_episodic: ClassVar[bool] = False
    has_return: ClassVar[bool] = False

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

    @classmethod
    def has_oracle(cls) -> bool:
        """Whether it knows what solves its tasks, as a whole plan or turn by turn."""
        return cls.gold_plan is not Environment.gold_plan or cls.gold_turn is not Environment.gold_turn

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
    def exclusive_because(self) -> str | None:
        """Why only one process at a time may have it open; None where several may."""
        return None

    @property
    def max_open(self) -> int:
        """Episodes of several turns that may be under way at a time."""
        return 16

    @property
    def max_turns(self) -> int | None:
        """Turns after which an episode ends; None where that is not known beforehand."""
        return None

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

    async def self_check(self, tasks: Sequence[Task]) -> dict[str, Unsolved]:
        """Run the gold plan of each task; return the ids of tasks that it does not solve, with the reason.

        Those whose gold plan was lost are among them. A task without a gold plan cannot be checked, and is not.
        """
        pages = await self.observe_many(tasks)
        gold = [(task, self.gold_plan(task, page)) for task, page in zip(tasks, pages, strict=True)]
        pairs = [(task, plan) for task, plan in gold if plan is not None]
        outcomes = await self.prove(pairs)
        found = {task.id: unsolved(outcome, "gold plan") for (task, _), outcome in zip(pairs, outcomes, strict=True)}
        return {task_id: why for task_id, why in found.items() if why is not None}

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


def unsolved(outcome: Outcome, what: str) -> Unsolved | None:
    """Why an outcome does not prove its task; None where it does.

    Args:
        outcome: Of what should solve the task.
        what: That, in words.
    """
    if not outcome.is_valid:
        return Unsolved(reason=f"its {what} could not be run: {outcome.fault_reason}", is_lost=True)
    if outcome.is_success:
        return None
    return Unsolved(reason=outcome.fault_reason or f"its {what} does not score 1: {outcome.notes()}")


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
