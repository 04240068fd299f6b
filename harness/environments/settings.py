"""Settings of the form environment, checked once when they are made."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.records.tasks import SPLITS
from harness.environments.base import BrowserSettings
from harness.sites.schema import Size

WORLDS = ("basic", "rich")
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
        caches_outcomes: Whether equal pairs of all calls are run once.
        audit_every: One in so many of the outcomes that were reused is run after all, and must be equal.
        recheck_every: About one in so many plans that `run_many` runs in its own way is run a second time as
            evaluation runs it, in a new context with real input; `Outcome.recheck` says whether that came to the same.
            Task and plan alone decide which ones. 0 for none.
        world: "basic", or "rich" for further kinds, richer controls and obstacles.
        difficulties: Difficulties of the rich world.
        cache_dir: Folder of scouted sites; None for the user's cache folder.
        trace_dir: Folder of traces and screenshots of the last 20 failed rollouts; None for none. With it, every
            rollout runs in a context of its own.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    size: Size = "small"
    dials: tuple[int, ...] = (0, 1)
    seed: int = 0
    kinds: tuple[str, ...] | None = None
    sites_per_kind: int | None = None
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

    def is_rechecked(self, task_id: str, plan: str) -> bool:
        """Whether this plan belongs to the sample that is run a second time."""
        return (
            self.recheck_every > 0
            and zlib.crc32(f"{task_id}\n{plan}".encode(errors="surrogatepass")) % self.recheck_every == 0
        )

    def __post_init__(self) -> None:
        BrowserSettings.__post_init__(self)
        for split in self.counts:
            self.count(split)
        if self.world not in WORLDS:
            raise unknown_name("world", self.world, WORLDS)
        if self.recheck_every < 0:
            raise ConfigError(f"recheck_every is {self.recheck_every}; expected 0 for never, or a number of rollouts.")
        if self.audit_every < 1:
            raise ConfigError(f"audit_every is {self.audit_every}; expected at least 1.")


def world_settings(world: str, difficulties: Sequence[int], *, counts: Mapping[str, int]) -> FormSettings:
    """Settings that name a world. Raises ConfigError for difficulties of a world that has none."""
    if difficulties and world != "rich":
        raise ConfigError(f"the world '{world}' has no difficulties. Say --world rich, or leave --difficulty away.")
    return FormSettings(world=world, difficulties=tuple(difficulties) or (1, 2, 3), counts=counts)
