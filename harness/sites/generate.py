"""Tasks from a seed: which sites a split has, which values a task wants, and the instruction that asks for them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.records.tasks import SPLITS, ControlKind, GoldField, Task
from dllm_rl.seeding import python_random
from harness.sites.answers import all_errors, is_visible, site_defaults
from harness.sites.factory import HELD_OUT_LAYOUTS, TRAIN_LAYOUTS, make_site
from harness.sites.forms import forms
from harness.sites.instructions import Wish, write_instruction
from harness.sites.newer import draw_obstacle, newer, num_finish_lines
from harness.sites.schema import TICKED, Answers, Obstacle, Persona, Site, SiteField, Size
from harness.sites.values import draw_persona

MAX_ATTEMPTS = 200
SEED_BASE = {"train": 0, "val": 100_000, "test": 200_000, "test_layout": 300_000}
SITES_PER_KIND = {"train": 24, "val": 6, "test": 12, "test_layout": 12}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many gold fields and plan lines a task of a size may have."""

    min_gold: int
    max_gold: int
    max_lines: int
    max_value: int


BOUNDS: dict[str, Bounds] = {
    "small": Bounds(min_gold=3, max_gold=6, max_lines=8, max_value=24),
    "full": Bounds(min_gold=4, max_gold=18, max_lines=40, max_value=400),
}


RICH_BOUNDS = Bounds(min_gold=2, max_gold=24, max_lines=48, max_value=400)


def crossed(index: int, kinds: Sequence[str], levels: Sequence[int]) -> tuple[str, int]:
    """The kind and the level of a task: the kinds in turn, each at the next level in its next turn.

    So every kind is met at every level within as many tasks as there are pairs, whatever the two numbers.
    """
    turn, place = divmod(index, len(kinds))
    return kinds[place], levels[(place - turn) % len(levels)]


def make_tasks(
    split: str,
    *,
    count: int,
    seed: int = 0,
    size: Size = "small",
    dials: tuple[int, ...] = (0, 1),
    sites_per_kind: int | None = None,
    kinds: tuple[str, ...] | None = None,
    obstacles: tuple[Obstacle, ...] = (),
) -> tuple[Task, ...]:
    """Make `count` tasks of a split, balanced over form kinds and dials.

    Equal arguments give equal tasks on every machine; a larger count continues the same list. The sites of two splits
    are never the same: `site_keys` draws them from disjoint seeds, and `test_layout` also from layouts and wordings of
    its own.

    Args:
        split: Name of the split.
        count: Number of tasks.
        seed: Seed of the tasks.
        size: "small" or "full" forms.
        dials: Difficulties of the instruction's wording.
        sites_per_kind: Number of sites of each kind; None for the split's own.
        kinds: Kinds of forms; None for all.
        obstacles: For sites of the newer design, what may stand in the way; each site has one, by its seed.
    """
    names = kinds or tuple(forms())
    pools = {kind: site_keys(split, kind, size=size, count=sites_per_kind) for kind in names}
    tasks = []
    for index in range(count):
        kind, dial = names[index % len(names)], dials[index // len(names) % len(dials)]
        rng = python_random(seed, "task", split, size, index)
        site = make_site(rng.choice(pools[kind]))
        if obstacles:
            site = newer(site, draw_obstacle(kind, site.seed, obstacles))
        tasks.append(make_task(index, split, site, dial, rng))
    return tuple(tasks)


def site_keys(split: str, kind: str, *, size: Size = "small", count: int | None = None) -> tuple[str, ...]:
    """Keys of the sites of one kind in a split; a larger count continues the same list."""
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    layouts = HELD_OUT_LAYOUTS if split == "test_layout" else TRAIN_LAYOUTS
    base = SEED_BASE[split]
    if count is not None and not 0 < count <= 100_000:
        raise ConfigError(f"sites_per_kind is {count}; expected 1 to 100000.")
    seeds = range(base, base + (count or SITES_PER_KIND[split]))
    return tuple(f"{kind}.{size}.{layouts[seed % len(layouts)]}.s{seed}" for seed in seeds)


def make_task(index: int, split: str, site: Site, dial: int, rng: Random) -> Task:
    """Draw one task. Its id ends with a digest of what is asked, so that other seeds and settings give other ids."""
    wishes = draw_wishes(site, rng)
    gold = tuple(
        GoldField(name=wish.field.name, kind=_gold_kind(wish.field), wanted=wish.wanted, label=wish.field.label)
        for wish in wishes
    )
    instruction = write_instruction(wishes, dial=dial, is_held_out=site.is_held_out, rng=rng)
    digest = hashlib.sha256(repr((site.key, instruction, gold)).encode()).hexdigest()[:6]
    task_id = f"{split}/{site.form.kind}-{site.seed}-{index}.{digest}"
    return Task(id=task_id, split=split, site=site.key, instruction=instruction, gold=gold, dial=dial)


def _gold_kind(field: SiteField) -> ControlKind:
    """Return the kind by which values are compared: a date in the site's own format is compared as text."""
    return "text" if field.widget == "picker" else field.spec.kind


def draw_wishes(site: Site, rng: Random) -> list[Wish]:
    """Draw values until the server would accept them and the plan has the right length."""
    bounds = RICH_BOUNDS if site.behaviour.difficulty else BOUNDS[site.size]
    for _ in range(MAX_ATTEMPTS):
        wishes = _draw_once(site, rng)
        answers = {**site_defaults(site), **{wish.field.name: wish.wanted for wish in wishes}, **_opened(site, wishes)}
        if _fits(wishes, site, bounds) and not all_errors(site, answers):
            return wishes
    raise ConfigError(f"no valid task for site {site.key} in {MAX_ATTEMPTS} attempts. Check the rules of its form.")


def _opened(site: Site, wishes: list[Wish]) -> dict[str, tuple[str, ...]]:
    """The parts of pages that these wishes need open."""
    opened: dict[str, tuple[str, ...]] = {}
    for wish in wishes:
        field: SiteField | None = wish.field
        while field is not None and field.spec.when is not None:
            field = site.field(field.spec.when.field)
            if field is not None and field.spec.kind == "button":
                opened[field.name] = (TICKED,)
    return opened


def _fits(wishes: list[Wish], site: Site, bounds: Bounds) -> bool:
    lines = num_finish_lines(site) + sum(max(1, len(wish.wanted)) for wish in wishes)
    longest = max((len(value) for wish in wishes for value in wish.wanted), default=0)
    return (
        bounds.min_gold <= len(wishes) <= bounds.max_gold and lines <= bounds.max_lines and longest <= bounds.max_value
    )


def _draw_once(site: Site, rng: Random) -> list[Wish]:
    """Every field that the server needs, and each other one with even odds."""
    persona = draw_persona(rng, site.size)
    answers: dict[str, tuple[str, ...]] = site_defaults(site)
    wishes = []
    for field in site.fields:
        if not is_visible(site, field, answers):
            continue
        if field.spec.kind == "button":
            answers[field.name] = (TICKED,) if rng.random() < 0.5 else ()
            continue
        is_needed = field.spec.required and not field.default
        if is_needed or rng.random() < 0.5:
            wanted = _draw_value(site, field, answers, persona, rng)
            if wanted is not None:
                wishes.append(Wish(field=field, wanted=wanted))
                answers[field.name] = wanted
    return wishes


def _draw_value(
    site: Site, field: SiteField, answers: Answers, persona: Persona, rng: Random
) -> tuple[str, ...] | None:
    """A value that differs from the default, or None where the draw is the default."""
    spec = field.spec
    if spec.is_multiple:
        most = min(len(field.options), 2 if site.size == "small" else 3)
        chosen = set(rng.sample(field.texts, rng.randint(1, most)))
        return tuple(text for text in field.texts if text in chosen)
    if field.options:
        return (rng.choice([text for text in field.texts if (text,) != field.default]),)
    if spec.kind == "checkbox":
        return () if field.default else (TICKED,)
    assert spec.draw is not None, f"field {spec.id} of {site.key} has neither options nor a draw"
    wanted = (field.written(spec.draw(rng, persona, site.size)),)
    return None if wanted == field.default else wanted
