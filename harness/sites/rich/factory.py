"""The rich world: tasks, and site key -> Site for `rich.<kind>.d<difficulty>.<layout>.s<seed>` (`rich.visa.d3.L2.s17`).

Difficulty 1: some richer controls. 2: more of them, all fields of the kind, something that covers the page, at times a
review step. 3: every field that can has a richer control, and the site is slow or busy or asks to sign in first.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import groupby
from math import gcd
from random import Random

from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.records.tasks import SPLITS, Task
from dllm_rl.seeding import python_random
from harness.sites.factory import HELD_OUT_LAYOUTS, LAYOUTS, RICH_PREFIX, TRAIN_LAYOUTS, assemble, make_site
from harness.sites.forms.common import LOGIN_FIELDS, with_login
from harness.sites.generate import SEED_BASE, SITES_PER_KIND, crossed, make_task
from harness.sites.rich.kinds import rich_form, rich_forms
from harness.sites.schema import Behaviour, FormSpec, Option, Site, SiteField, SitePage
from harness.sites.values import Whole

DIFFICULTIES = (1, 2, 3)
LOOKS = ("paper", "civic", "soft", "bold", "dusk")
WIDGET_SHARE = {1: 0.5, 2: 0.8, 3: 1.0}
MIN_COMBOBOX_OPTIONS = 4
MAX_SLIDER_STEPS = 80
# How a date is typed, and how its label says so.
DATE_FORMATS = (("%d.%m.%Y", "DD.MM.YYYY"), ("%m/%d/%Y", "MM/DD/YYYY"), ("%Y/%m/%d", "YYYY/MM/DD"))
_KEY = re.compile(r"rich\.(?P<kind>[a-z_]+)\.d(?P<difficulty>[123])\.(?P<layout>L\d+)\.s(?P<seed>\d+)")


def make_rich_site(key: str) -> Site:
    """Build the site of a key. Raises ConfigError for a malformed key."""
    match = _KEY.fullmatch(key)
    if match is None or match["layout"] not in LAYOUTS:
        raise ConfigError(f"no site key: '{key}'. Expected such as 'rich.visa.d3.L2.s17', difficulties 1 to 3.")
    difficulty, layout, seed = int(match["difficulty"]), LAYOUTS[match["layout"]], int(match["seed"])
    rng = python_random(seed, "rich site", match["kind"], difficulty, layout.name)
    form = _stepped(rich_form(match["kind"]), difficulty, rng)
    site = assemble(key, form, layout, "small" if difficulty == 1 else "full", seed, rng)
    rich = _Richer(site, difficulty, rng)
    pages = tuple(replace(page, fields=_in_option_order(tuple(map(rich, page.fields)))) for page in site.pages)
    return replace(site, pages=pages, behaviour=_behaviour(pages, difficulty, rng))


def _stepped(form: FormSpec, difficulty: int, rng: Random) -> FormSpec:
    """Add a page to sign in or to review, as difficulty and seed decide."""
    has_login = any(item.id == LOGIN_FIELDS[0].id for item in form.fields)
    if difficulty == 3 and not has_login and rng.random() < 0.35:
        form = with_login(form)
    if difficulty >= 2 and not form.has_review and rng.random() < 0.35:
        form = replace(form, has_review=True)
    return form


def _in_option_order(fields: tuple[SiteField, ...]) -> tuple[SiteField, ...]:
    """Sort neighbours of which each answer shows one by the order of the answers, as an observation lists them."""
    options = {item.id: item.texts for item in fields}
    ordered: list[SiteField] = []
    for decider, run in groupby(fields, key=lambda item: item.spec.when.field if item.spec.when else ""):
        order = options.get(decider, ())
        neighbours = list(run)
        ordered += sorted(neighbours, key=lambda item: _place(item, order)) if order else neighbours
    return tuple(ordered)


def _place(field: SiteField, order: tuple[str, ...]) -> int:
    assert field.spec.when is not None
    return order.index(field.spec.when.answer)


def _behaviour(pages: tuple[SitePage, ...], difficulty: int, rng: Random) -> Behaviour:
    obstacles: tuple[str, ...] = ()
    if difficulty >= 2:
        obstacles = (rng.choice(("cookies", "notice")),)
    trouble = rng.choice(("slow", "busy", "none")) if difficulty == 3 else "none"
    # A page that comes back has lost its files, and nobody should have to hand them in twice.
    has_files = any(item.spec.kind == "file" for item in pages[-1].fields)
    return Behaviour(
        difficulty=difficulty,
        obstacles=obstacles,
        num_refusals=int(trouble == "busy" and not has_files),
        seconds=0.25 if trouble == "slow" else 0.0,
        look=rng.choice(LOOKS),
    )


class _Richer:
    """Gives a field the richer control that fits it, as often as the difficulty says."""

    def __init__(self, site: Site, difficulty: int, rng: Random) -> None:
        self.share, self.rng = WIDGET_SHARE[difficulty], rng
        self.deciding = {item.spec.when.field for item in site.fields if item.spec.when}
        self.compared = {name for rule in site.form.rules for name in rule.fields}
        self.num_named: Counter[str] = Counter()
        self.date_format, self.date_words = rng.choice(DATE_FORMATS)

    def __call__(self, field: SiteField) -> SiteField:
        """Number repeated names: alternative lists may share a label, and so a name made of it."""
        self.num_named[field.name] += 1
        number = self.num_named[field.name]
        return self._richer(replace(field, name=f"{field.name}-{number}") if number > 1 else field)

    def _richer(self, field: SiteField) -> SiteField:
        spec = field.spec
        if spec.widget != "native":
            return replace(field, widget=spec.widget)
        if self.rng.random() >= self.share:
            return field
        if spec.kind == "date":
            return self._picker(field)
        if spec.kind == "number" and isinstance(spec.draw, Whole) and spec.id not in self.compared and not spec.when:
            return _slider(field, spec.draw)
        if spec.kind == "select" and len(field.options) >= MIN_COMBOBOX_OPTIONS and spec.id not in self.deciding:
            # What is typed is what is sent.
            options = tuple(Option(text=text, value=text) for text in field.texts)
            return replace(field, widget="combobox", options=options, placeholder="")
        return field

    def _picker(self, field: SiteField) -> SiteField:
        written = replace(field, widget="picker", date_format=self.date_format)
        label = f"{field.label} ({self.date_words})"
        return replace(written, label=label, default=tuple(map(written.written, field.default)))


def _slider(field: SiteField, draw: Whole) -> SiteField:
    """Make a slider on which every possible value, and the middle, is a position of the handle."""
    num_steps = (draw.high - draw.low) // draw.step
    num_steps += num_steps % 2
    if num_steps > MAX_SLIDER_STEPS:
        return field
    low, high = str(draw.low), str(draw.low + num_steps * draw.step)
    spec = replace(field.spec, minimum=low, maximum=high)
    default = field.default if field.default and draw.low <= int(field.default[0]) <= draw.high else (low,)
    is_place = (int(default[0]) - draw.low) % draw.step == 0
    return replace(field, spec=spec, widget="slider", step=draw.step, default=default if is_place else (low,))


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
    """Make `count` tasks of a split; a larger count continues the same list. `kinds=None` takes all kinds."""
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    for difficulty in difficulties:
        if difficulty not in DIFFICULTIES:
            raise ConfigError(f"difficulty {difficulty} is unknown; expected 1, 2 or 3.")
    names = tuple(rich_form(kind).kind for kind in kinds) if kinds else tuple(rich_forms())
    layouts = HELD_OUT_LAYOUTS if split == "test_layout" else TRAIN_LAYOUTS
    # As many turns of the kinds share a dial as it takes that a kind is met at every difficulty with every dial.
    num_turns = 1 if gcd(len(dials), len(difficulties)) == 1 else len(difficulties)
    tasks = []
    for index in range(count):
        kind, difficulty = crossed(index, names, difficulties)
        rng = python_random(seed, "rich task", split, index)
        number = SEED_BASE[split] + rng.randrange(sites_per_kind or SITES_PER_KIND[split])
        site = make_site(f"{RICH_PREFIX}{kind}.d{difficulty}.{layouts[number % len(layouts)]}.s{number}")
        task = make_task(index, split, site, dials[index // len(names) // num_turns % len(dials)], rng)
        is_busy = site.behaviour.num_refusals > 0
        words = f"{task.instruction.rstrip('.')}. {BUSY}"
        tasks.append(replace(task, instruction=words) if is_busy else task)
    return tuple(tasks)
