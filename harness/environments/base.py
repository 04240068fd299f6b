"""What environments share that run plans in a browser of their own, and the settings of the form environment."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Generic, Literal, TypeVar, get_args

from dllm_rl.environment import Environment
from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.options import fixed
from dllm_rl.records.tasks import SPLITS, Observation, Outcome, Task
from harness.browser import (
    NUM_ATTEMPTS,
    Attempt,
    BrowserPool,
    EnvironmentFaultError,
    Isolation,
    isolation_named,
    usual_places,
)
from harness.execute import ExecutorName, executor_named
from harness.judge import outcome as outcomes
from harness.sites.schema import OBSTACLES, Obstacle, Size

LOST_IN_A_ROW = 3


@dataclass(slots=True)
class Quarantine:
    """Sites that are out of service, by key, with the reason.

    A site is taken out of service after `LOST_IN_A_ROW` lost rollouts in a row, provided that another site has served a
    rollout meanwhile: if all fail, the site is not the cause. Each further rollout would cost three attempts; instead
    it counts as lost at once, with the reason, and is masked.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    _lost: dict[str, int] = field(default_factory=dict)
    _served: dict[str, int] = field(default_factory=dict)
    _num_served: int = 0

    def forget(self) -> None:
        """Forget all failures, so that those of one call have no effect on the next."""
        self.reasons.clear()
        self._lost.clear()
        self._served.clear()
        self._num_served = 0

    def served(self, site: str) -> None:
        """A rollout on this site came to an outcome."""
        self._num_served += 1
        self._lost.pop(site, None)

    def lost(self, site: str, reason: str) -> None:
        """A rollout on this site was lost in all its attempts."""
        if site not in self._lost:
            self._lost[site], self._served[site] = 0, self._num_served
        self._lost[site] += 1
        if self._lost[site] >= LOST_IN_A_ROW and self._num_served > self._served[site]:
            self.reasons[site] = f"site quarantined after {self._lost[site]} lost rollouts: {reason}"


# The isolation modes of pages that cannot be frames of another one.
IN_A_TAB: tuple[Isolation, ...] = ("context", "origin", "page")


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserSettings:
    """How an environment runs plans in its browser, where a call does not say otherwise.

    Attributes:
        isolation: How rollouts are kept apart; see `harness.browser.pool.BrowserPool`.
        executor: How actions are carried out: by script ("fast") or by real input ("trusted").
        concurrency: Rollouts at a time; None for the number measured to be best for isolation mode and cores.
    """

    isolation: Isolation = "page"
    executor: ExecutorName = "fast"
    concurrency: int | None = fixed(default=None)

    def __post_init__(self) -> None:
        isolation_named(self.isolation)
        executor_named(self.executor)
        if self.concurrency is not None and self.concurrency < 1:
            raise ConfigError(f"concurrency is {self.concurrency}; expected at least 1.")

    def num_places(self, isolation: Isolation) -> int:
        """Rollouts at a time in this isolation mode."""
        return self.concurrency or usual_places(isolation)


def check_counts(counts: Mapping[str, int], splits: Iterable[str]) -> None:
    """Raise ConfigError for a split that does not exist, or a number of tasks below 0."""
    for split, count in counts.items():
        if split not in splits:
            raise unknown_name("split", split, splits)
        if count < 0:
            raise ConfigError(f"counts.{split} is {count}; expected a number of tasks.")


S = TypeVar("S", bound=BrowserSettings)


class BrowserEnvironment(Environment, Generic[S]):
    """An environment with a pool of browsers, which its `close` must close."""

    isolations: ClassVar[tuple[str, ...]] = get_args(Isolation)
    executors: ClassVar[tuple[str, ...]] = get_args(ExecutorName)

    def __init__(self, settings: S) -> None:
        self.settings = settings
        self.pool = BrowserPool()

    @property
    def concurrency(self) -> int:
        """Rollouts at a time in the isolation mode of the settings."""
        return self.settings.num_places(self.settings.isolation)

    @property
    def versions(self) -> Mapping[str, str]:
        """The version of the Chromium that runs now."""
        return {"chromium": self.pool.version} if self.pool.version else {}

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the browsers that run now."""
        return self.pool.pids

    async def attempt(self, task: Task, page: Observation, once: Callable[[Attempt], Awaitable[Outcome]]) -> Outcome:
        """Run a rollout until the environment does not lose it; lost in every attempt, its outcome says so.

        Args:
            task: The task of the rollout.
            page: What is known of its page, for the outcome of a lost rollout.
            once: One attempt, which raises EnvironmentFaultError where the environment loses it.
        """

        async def numbered(attempt: Attempt) -> Outcome:
            return replace(await once(attempt), num_attempts=attempt.number)

        try:
            return await self.pool.attempts(numbered)
        except EnvironmentFaultError as fault:
            return outcomes.lost(task, page, str(fault), NUM_ATTEMPTS)


World = Literal["basic", "rich"]
WORLDS: tuple[World, ...] = get_args(World)
Design = Literal["older", "newer"]
DESIGNS: tuple[Design, ...] = get_args(Design)
SIZE: Size = "small"
DIALS = (0, 1, 2)
DIFFICULTIES = (1, 2, 3)
# The seeds of a split's sites; those of the next one follow.
MAX_SITES_PER_KIND = 100_000
DEFAULT_COUNTS = {"train": 360, "val": 60, "test": 120, "test_layout": 60}


@dataclass(frozen=True, slots=True, kw_only=True)
class FormSettings(BrowserSettings):
    """Settings of the form environment.

    Attributes:
        counts: Number of tasks by split.
        size: "small" or "full" forms; the basic world only.
        dials: Difficulties of the instruction's wording; see `dllm_rl.records.tasks.Task.dial`.
        seed: Seed of sites and tasks.
        kinds: Kinds of forms; None for all.
        sites_per_kind: Number of sites of each kind; None for one a task.
        shares_identical: Whether equal (task, plan) pairs of one call are run once.
        caches_outcomes: Whether equal pairs of all calls are run once, and those of all processes of one grid.
        audit_every: One in so many of the outcomes that were reused is run after all, and must be equal.
        recheck_every: About one in so many plans that `run_many` runs in its own way is run a second time as
            evaluation runs it, in a new context with real input; `Outcome.recheck` says whether that came to the same.
            Task and plan alone decide which ones. 0 for none.
        world: "basic", or "rich" for further kinds, richer controls and obstacles.
        difficulties: Difficulties of the rich world; it only.
        design: "older", or "newer" for sites with an obstacle between right fields and an accepted form; the basic
            world only. See `harness.sites.newer`.
        obstacles: What may stand in the way in the newer design; each site has one, by its seed. None for all kinds.
        cache_dir: Folder of scouted sites; None for the user's cache folder.
        trace_dir: Folder of traces and screenshots of the last 20 failed rollouts; None for none. With it, every
            rollout runs in a context of its own.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    size: Size = SIZE
    dials: tuple[int, ...] = (0, 1)
    seed: int = 0
    kinds: tuple[str, ...] | None = None
    sites_per_kind: int | None = None
    shares_identical: bool = True
    caches_outcomes: bool = False
    audit_every: int = 100
    recheck_every: int = 100
    world: World = "basic"
    difficulties: tuple[int, ...] = DIFFICULTIES
    design: Design = "older"
    obstacles: tuple[Obstacle, ...] | None = None
    cache_dir: Path | str | None = fixed(default=None)
    trace_dir: Path | str | None = None

    def count(self, split: str) -> int:
        """Number of tasks of a split. Raises ConfigError for an unknown split."""
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        return {**DEFAULT_COUNTS, **self.counts}[split]

    def is_rechecked(self, task_id: str, plan: str) -> bool:
        """Whether this plan belongs to the sample that is run a second time."""
        return (
            self.recheck_every > 0
            and zlib.crc32(f"{task_id}\n{plan}".encode(errors="surrogatepass")) % self.recheck_every == 0
        )

    def __post_init__(self) -> None:
        BrowserSettings.__post_init__(self)
        check_counts(self.counts, SPLITS)
        _check_levels("dials", self.dials, DIALS)
        _check_levels("difficulties", self.difficulties, DIFFICULTIES)
        if self.sites_per_kind is not None and not 0 < self.sites_per_kind <= MAX_SITES_PER_KIND:
            raise ConfigError(f"sites_per_kind is {self.sites_per_kind}; expected 1 to {MAX_SITES_PER_KIND}.")
        if self.kinds == ():
            raise ConfigError("kinds is empty; expected names of kinds of forms. Leave it out for all.")
        if self.world == "rich" and self.size != SIZE:
            raise ConfigError(f"size is {self.size}; a form of the rich world is as large as its difficulty. Drop it.")
        if self.world == "basic" and self.difficulties != DIFFICULTIES:
            raise ConfigError("the world 'basic' has no difficulties. Take the world rich, or leave them out.")
        self._check_design()
        if self.recheck_every < 0:
            raise ConfigError(f"recheck_every is {self.recheck_every}; expected 0 for never, or a number of rollouts.")
        if self.audit_every < 1:
            raise ConfigError(f"audit_every is {self.audit_every}; expected at least 1.")

    def _check_design(self) -> None:
        if self.design not in DESIGNS:
            raise unknown_name("design", self.design, DESIGNS)
        if self.obstacles == ():
            raise ConfigError(f"obstacles is empty; expected some of {', '.join(OBSTACLES)}. Leave it out for all.")
        for obstacle in self.obstacles or ():
            if obstacle not in OBSTACLES:
                raise unknown_name("obstacle", obstacle, OBSTACLES)
        if self.design == "older" and self.obstacles is not None:
            raise ConfigError("the design 'older' has no obstacles. Take the design newer, or leave them out.")
        if self.design == "newer" and self.world == "rich":
            raise ConfigError("the world 'rich' has one design. Take the world basic, or leave the design out.")


def _check_levels(name: str, given: Sequence[int], known: Sequence[int]) -> None:
    if not given or not set(given) <= set(known):
        raise ConfigError(f"{name} is {list(given)}; expected some of {', '.join(map(str, known))}.")


def world_settings(world: str, difficulties: Sequence[int], *, counts: Mapping[str, int]) -> FormSettings:
    """Settings that name a world. Raises ConfigError for an unknown one, and for difficulties where it has none."""
    for known in WORLDS:
        if known == world:
            return FormSettings(world=known, difficulties=tuple(difficulties) or DIFFICULTIES, counts=counts)
    raise unknown_name("world", world, WORLDS)
