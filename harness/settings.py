"""Settings of the form environment, checked once when they are made."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.tasks import SPLITS
from harness.browser import Isolation
from harness.cores import usable_cores
from harness.executor import ExecutorName
from harness.sites.schema import Size

WORLDS = ("basic", "rich")
DEFAULT_COUNTS = {"train": 360, "val": 60, "test": 120, "test_layout": 60}
# Where rollouts a second stop growing (`experiments.bench.harness --concurrency 1 2 3 4 6 8 12`).
PLACES_A_CORE: dict[Isolation, int] = {"context": 2, "origin": 2, "page": 2, "arena": 4}
# Of one browser, whatever the number of cores: each context takes some 25 MB and the one browser process serves all.
MAX_PLACES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class FormSettings:
    """Settings of the form environment.

    counts: tasks a split. size, dials, seed, kinds, sites_per_kind: as `harness.sites.make_tasks` takes them.
    isolation, executor: what `run` uses where a call does not say otherwise. concurrency: rollouts at a time;
    None for what was measured to be best, by isolation mode and cores (`PLACES_A_CORE`).
    shares_identical: equal (task, plan) pairs of one call are run once. caches_outcomes: so are those of all calls.
    audit_every: one in so many of the outcomes that were not run for this reason is run after all, and must be equal.
    recheck_every: of the plans that `run_many` runs in its own way, about one in so many is run a second time as
    evaluation does it, in a new context with real input, and `Outcome.recheck` says whether that came to the same;
    which ones is decided by task and plan alone. 0 for none.
    world: "basic", or "rich" for further kinds, richer controls and what stands in the way; it has no `size`, but
    difficulties.
    cache_dir: where scouted sites are kept; None for the user's cache folder.
    trace_dir: where traces and screenshots of the last 20 failed rollouts are kept; None for nowhere. Every rollout
    then runs in a context of its own.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    size: Size = "small"
    dials: tuple[int, ...] = (0, 1)
    seed: int = 0
    kinds: tuple[str, ...] | None = None
    sites_per_kind: int | None = None
    isolation: Isolation = "page"
    executor: ExecutorName = "fast"
    concurrency: int | None = None
    shares_identical: bool = True
    caches_outcomes: bool = False
    audit_every: int = 100
    recheck_every: int = 100
    world: str = "basic"
    difficulties: tuple[int, ...] = (1, 2, 3)
    cache_dir: Path | str | None = None
    trace_dir: Path | str | None = None

    def count(self, split: str) -> int:
        """Number of tasks of a split. Raises ConfigError for a name that is none."""
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        return {**DEFAULT_COUNTS, **self.counts}[split]

    def num_places(self, isolation: Isolation) -> int:
        """Rollouts at a time in this isolation mode."""
        return self.concurrency or min(MAX_PLACES, PLACES_A_CORE[isolation] * usable_cores())

    def is_rechecked(self, task_id: str, plan: str) -> bool:
        """Whether this plan belongs to the sample that is run a second time."""
        return (
            self.recheck_every > 0
            and zlib.crc32(f"{task_id}\n{plan}".encode(errors="surrogatepass")) % self.recheck_every == 0
        )

    def __post_init__(self) -> None:
        for split in self.counts:
            self.count(split)
        if self.world not in WORLDS:
            raise unknown_name("world", self.world, WORLDS)
        if self.isolation not in get_args(Isolation):
            raise unknown_name("isolation", self.isolation, get_args(Isolation))
        if self.executor not in get_args(ExecutorName):
            raise unknown_name("executor", self.executor, get_args(ExecutorName))
        if self.concurrency is not None and self.concurrency < 1:
            raise ConfigError(f"concurrency is {self.concurrency}; expected at least 1.")
        if self.recheck_every < 0:
            raise ConfigError(f"recheck_every is {self.recheck_every}; expected 0 for never, or a number of rollouts.")
        if self.audit_every < 1:
            raise ConfigError(f"audit_every is {self.audit_every}; expected at least 1.")


def world_settings(world: str, difficulties: Sequence[int], *, counts: Mapping[str, int]) -> FormSettings:
    """Settings that name a world. Raises ConfigError for difficulties of a world that has none."""
    if difficulties and world != "rich":
        raise ConfigError(f"the world '{world}' has no difficulties. Say --world rich, or leave --difficulty away.")
    return FormSettings(world=world, difficulties=tuple(difficulties) or (1, 2, 3), counts=counts)
