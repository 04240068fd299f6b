"""The environment of episodes: errands in real Chromium, a turn at a time, judged by what the server received."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from dllm_rl.environment import Unsolved, limited, unsolved
from dllm_rl.episodes import Modes, first_page, played, played_again
from dllm_rl.errors import ConfigError
from dllm_rl.options import fixed
from dllm_rl.records.rollout import Turn
from dllm_rl.records.tasks import Observation, Outcome, Task
from dllm_rl.registry import register
from harness.browser import Isolation
from harness.environments.base import BrowserEnvironment, BrowserSettings, check_counts
from harness.environments.errand_episode import BrowserEpisode
from harness.errands import DIFFICULTIES, SPLITS, ErrandServer, check_errands, make_errand, make_tasks, oracle_turn
from harness.execute import executor_named

DEFAULT_COUNTS = {"train": 360, "val": 60, "test": 120}


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSettings(BrowserSettings):
    """Settings of the environment of episodes.

    Attributes:
        counts: Number of tasks by split.
        kinds: Kinds of errands; None for all.
        difficulties: Difficulties of the errands.
        seed: Seed of the errands.
        max_turns: Turns after which an episode ends.
        max_actions: Actions of one turn; what comes after them is skipped.
        max_open: Episodes that are under way at a time, each in a context of its own.
        takes_pictures: Whether observations hold a picture of the window.
    """

    isolation: Isolation = "context"
    counts: Mapping[str, int] = field(default_factory=dict)
    kinds: tuple[str, ...] | None = None
    difficulties: tuple[int, ...] = DIFFICULTIES
    seed: int = 0
    max_turns: int = 16
    max_actions: int = 8
    max_open: int = fixed(default=16)
    takes_pictures: bool = False

    def __post_init__(self) -> None:
        BrowserSettings.__post_init__(self)
        if self.isolation != "context":
            raise ConfigError(f"isolation is {self.isolation}; an episode has a context of its own. Leave it out.")
        check_counts(self.counts, SPLITS)
        check_errands(self.kinds, self.difficulties)
        for name in ("max_turns", "max_actions", "max_open"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 1.")


@register("environment", "episodes")
class EpisodeEnvironment(BrowserEnvironment[EpisodeSettings]):
    """Errands: tasks that need several turns, on sites of which nothing is known beforehand."""

    splits: ClassVar[tuple[str, ...]] = SPLITS
    isolations: ClassVar[tuple[str, ...]] = ("context",)
    is_episodic: ClassVar[bool] = True
    version: ClassVar[int] = 2

    def __init__(self, settings: EpisodeSettings | None = None) -> None:
        super().__init__(settings or EpisodeSettings())
        self.server = ErrandServer()
        self.places = asyncio.Semaphore(self.concurrency)
        self.ids = itertools.count(1)
        self._is_open = False

    async def open(self) -> None:
        """Start the server and the browser."""
        if not self._is_open:
            await self.server.start()
            self._is_open = True
        await self.pool.open()

    async def close(self) -> None:
        """End the browser and the server."""
        await self.pool.close()
        if self._is_open:
            self._is_open = False
            await self.server.stop()

    @property
    def max_open(self) -> int:
        """Episodes under way at a time."""
        return self.settings.max_open

    @property
    def max_turns(self) -> int:
        """Turns after which an episode ends."""
        return self.settings.max_turns

    def tasks(self, split: str) -> tuple[Task, ...]:
        """All tasks of a split, in a fixed order. Needs no browser."""
        settings = self.settings
        count = {**DEFAULT_COUNTS, **settings.counts}[split]
        return make_tasks(split, count, seed=settings.seed, kinds=settings.kinds, difficulties=settings.difficulties)

    def begin(self, task: Task, modes: Modes) -> BrowserEpisode:
        """An episode of a task."""
        return BrowserEpisode(self, task, executor_named(modes.executor or self.settings.executor))

    async def observe(self, task: Task) -> Observation:
        """The first page of a task."""
        return await first_page(self.begin(task, Modes()), task)

    async def run(self, task: Task, plan: str, *, isolation: str | None = None, executor: str | None = None) -> Outcome:
        """Play the turns of a recorded episode; an empty line stands between two of them."""
        return await played_again(self.begin(task, Modes(executor=executor)), plan)

    def gold_turn(self, task: Task, turns: Sequence[Turn], observation: Observation) -> str | None:
        """What the oracle does next."""
        return oracle_turn(make_errand(task.site), turns, observation, self.settings.max_actions)

    async def self_check(self, tasks: Sequence[Task]) -> dict[str, Unsolved]:
        """Play the oracle on each task; return the ids of tasks that it does not solve, with the reason."""
        found = await limited((self._checked(task) for task in tasks), self.max_open)
        return {task.id: why for task, why in zip(tasks, found, strict=True) if why is not None}

    async def _checked(self, task: Task) -> Unsolved | None:
        outcome = await played(self.begin(task, Modes()), functools.partial(self.gold_turn, task))
        return unsolved(outcome, "oracle")
