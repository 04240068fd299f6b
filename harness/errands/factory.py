"""Errand key -> Errand for `errand.<kind>.d<difficulty>.s<seed>`, and the tasks of a split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.records.tasks import Task
from dllm_rl.seeding import python_random
from harness.errands.kinds import KINDS
from harness.errands.schema import Errand
from harness.sites.generate import crossed
from harness.sites.vocabulary import BRANDS

DIFFICULTIES = (1, 2, 3)
SPLITS = ("train", "val", "test")
SEEDS_A_SPLIT = 1_000_000
_KEY = re.compile(r"errand\.(?P<kind>[a-z_]+)\.d(?P<difficulty>[123])\.s(?P<seed>\d+)")


@lru_cache(maxsize=4096)
def make_errand(key: str) -> Errand:
    """Build the errand of a key. Raises ConfigError for a key that is none."""
    match = _KEY.fullmatch(key)
    if match is None or match["kind"] not in KINDS:
        raise ConfigError(f"no errand key: '{key}'. Expected such as 'errand.lookup.d2.s17', difficulties 1 to 3.")
    rng = python_random(int(match["seed"]), "errand", match["kind"], match["difficulty"])
    draft = KINDS[match["kind"]](rng, int(match["difficulty"]))
    return Errand(
        key=key,
        kind=match["kind"],
        instruction=draft.instruction,
        pages=draft.pages,
        path=draft.path,
        brand=rng.choice(BRANDS),
        answer=draft.answer,
        done=draft.done,
    )


def check_errands(kinds: Sequence[str] | None, difficulties: Sequence[int]) -> None:
    """Raise ConfigError for kinds or difficulties that are unknown, and where there are none; None for all kinds."""
    for kind in kinds or ():
        if kind not in KINDS:
            raise unknown_name("kind of errand", kind, KINDS)
    if kinds is not None and not kinds:
        raise ConfigError("kinds is empty; expected names of kinds of errands. Leave it out for all.")
    if not difficulties or not set(difficulties) <= set(DIFFICULTIES):
        raise ConfigError(f"difficulties is {list(difficulties)}; expected some of 1, 2, 3.")


def make_tasks(
    split: str, count: int, *, seed: int, kinds: tuple[str, ...] | None, difficulties: tuple[int, ...]
) -> tuple[Task, ...]:
    """Make `count` tasks of a split, the kinds in turn; a larger count continues the same list."""
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    names = kinds or tuple(KINDS)
    first = SPLITS.index(split) * SEEDS_A_SPLIT + seed * SEEDS_A_SPLIT * len(SPLITS)
    tasks = []
    for index in range(count):
        kind, difficulty = crossed(index, names, difficulties)
        errand = make_errand(f"errand.{kind}.d{difficulty}.s{first + index}")
        task_id = f"{split}/{errand.key}"
        tasks.append(Task(id=task_id, split=split, site=errand.key, instruction=errand.instruction, gold=errand.gold))
    return tuple(tasks)
