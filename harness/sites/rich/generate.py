"""Tasks of the rich world: balanced over kinds, difficulties and dials, its sites from the seeds of their split."""

from __future__ import annotations

from dataclasses import replace

from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.records.tasks import SPLITS, Task
from dllm_rl.seeding import python_random
from harness.sites.factory import RICH_PREFIX, make_site
from harness.sites.generate import SEED_BASE, SITES_PER_KIND, make_task
from harness.sites.layouts import HELD_OUT_LAYOUTS, TRAIN_LAYOUTS
from harness.sites.rich.factory import DIFFICULTIES
from harness.sites.rich.kinds import rich_form, rich_forms

BUSY = "The service is busy at times: where it does not take the form, send it once more."


def make_rich_tasks(
    split: str,
    *,
    count: int,
    seed: int = 0,
    dials: tuple[int, ...] = (0, 1),
    kinds: tuple[str, ...] | None = None,
    sites_per_kind: int | None = None,
    difficulties: tuple[int, ...] = DIFFICULTIES,
) -> tuple[Task, ...]:
    """Make `count` tasks of a split; a larger count continues the same list. kinds: None takes all of the world."""
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    for difficulty in difficulties:
        if difficulty not in DIFFICULTIES:
            raise ConfigError(f"difficulty {difficulty} is none of the rich world; expected 1, 2 or 3.")
    names = tuple(rich_form(kind).kind for kind in kinds) if kinds else tuple(rich_forms())
    layouts = HELD_OUT_LAYOUTS if split == "test_layout" else TRAIN_LAYOUTS
    tasks = []
    for index in range(count):
        turn = index // len(names)
        kind, difficulty = names[index % len(names)], difficulties[(turn + index) % len(difficulties)]
        rng = python_random(seed, "rich task", split, index)
        number = SEED_BASE[split] + rng.randrange(sites_per_kind or SITES_PER_KIND[split])
        site = make_site(f"{RICH_PREFIX}{kind}.d{difficulty}.{layouts[number % len(layouts)]}.s{number}")
        task = make_task(index, split, site, dials[turn % len(dials)], rng)
        is_busy = site.behaviour.num_refusals > 0
        words = f"{task.instruction.rstrip('.')}. {BUSY}"
        tasks.append(replace(task, instruction=words) if is_busy else task)
    return tuple(tasks)
