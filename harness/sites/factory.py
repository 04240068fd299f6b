"""Site key -> Site: every choice of a rendered form follows from the form kind, the size, the layout and the seed.

A key reads `<kind>.<size>.<layout>.s<seed>`, for example `contact.small.L3.s17`, and in the newer design ends with an
obstacle. A layout decides how a page looks and in which order its fields stand; `L7` to `L9` belong to `test_layout`.
Names in HTML differ from site to site.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from random import Random

from dllm_rl.errors import ConfigError
from dllm_rl.seeding import python_random
from harness.sites import vocabulary
from harness.sites.forms import form
from harness.sites.newer import newer, older_key
from harness.sites.schema import OBSTACLES, FieldSpec, FormSpec, Option, Site, SiteField, SitePage, Size

Arrange = Callable[[list[FieldSpec], Random], list[FieldSpec]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One layout family. `template` is the file in `templates/` that lays out the fields."""

    name: str
    template: str
    arrange: Arrange
    is_held_out: bool = False


def as_listed(fields: list[FieldSpec], rng: Random) -> list[FieldSpec]:
    """Keep the order of the specification."""
    return list(fields)


def shuffled(fields: list[FieldSpec], rng: Random) -> list[FieldSpec]:
    """Draw an order."""
    return rng.sample(fields, len(fields))


def required_first(fields: list[FieldSpec], rng: Random) -> list[FieldSpec]:
    """Put required fields first."""
    return sorted(shuffled(fields, rng), key=lambda item: not item.required)


def choices_first(fields: list[FieldSpec], rng: Random) -> list[FieldSpec]:
    """Put options and boxes before typed fields."""
    return sorted(shuffled(fields, rng), key=lambda item: item.draw is not None)


def typed_first(fields: list[FieldSpec], rng: Random) -> list[FieldSpec]:
    """Put typed fields before options and boxes."""
    return sorted(shuffled(fields, rng), key=lambda item: item.draw is None)


def reversed_order(fields: list[FieldSpec], rng: Random) -> list[FieldSpec]:
    """Reverse the order of the specification."""
    return list(reversed(fields))


def by_kind(fields: list[FieldSpec], rng: Random) -> list[FieldSpec]:
    """Put fields of one kind side by side."""
    return sorted(shuffled(fields, rng), key=lambda item: item.kind)


def _all(*families: Layout) -> dict[str, Layout]:
    return {family.name: family for family in families}


LAYOUTS = _all(
    Layout(name="L1", template="stacked.html", arrange=as_listed),
    Layout(name="L2", template="columns.html", arrange=shuffled),
    Layout(name="L3", template="table.html", arrange=required_first),
    Layout(name="L4", template="wrapped.html", arrange=choices_first),
    Layout(name="L5", template="cards.html", arrange=typed_first),
    Layout(name="L6", template="stacked.html", arrange=shuffled),
    Layout(name="L7", template="steps.html", arrange=by_kind, is_held_out=True),
    Layout(name="L8", template="definitions.html", arrange=reversed_order, is_held_out=True),
    Layout(name="L9", template="sidebar.html", arrange=shuffled, is_held_out=True),
)
TRAIN_LAYOUTS = tuple(name for name, layout in LAYOUTS.items() if not layout.is_held_out)
HELD_OUT_LAYOUTS = tuple(name for name, layout in LAYOUTS.items() if layout.is_held_out)


NAME_STYLES = ("snake", "camel", "bracket", "number", "label")
OPTION_STYLES = ("text", "slug", "number")


def _camel(text: str) -> str:
    head, *tail = text.split("_")
    return head + "".join(word.title() for word in tail)


def _slug(text: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """One site's style. salt keeps the ids of two sites apart."""

    style: str
    option_style: str
    salt: str

    @classmethod
    def draw(cls, rng: Random) -> Naming:
        """Draw a style."""
        salt = "".join(rng.choice("bcdfghjklmnpqrstvwxz") for _ in range(3))
        return cls(style=rng.choice(NAME_STYLES), option_style=rng.choice(OPTION_STYLES), salt=salt)

    def name(self, spec_id: str, label: str, number: int) -> str:
        """The `name` attribute; number is the position of the field on the site, from 1."""
        styles = {
            "snake": spec_id,
            "camel": _camel(spec_id),
            "bracket": f"{self.salt}[{spec_id}]",
            "number": f"q{number}",
            "label": _slug(label),
        }
        return styles[self.style]

    def html_id(self, spec_id: str, number: int) -> str:
        """The `id` attribute."""
        return f"{self.salt}-{number}-{_slug(spec_id)}"

    def option(self, text: str, at: int) -> str:
        """The HTML value of an option; never empty."""
        return {"text": text, "slug": _slug(text), "number": str(at + 1)}[self.option_style]


MAX_SMALL_CONTROLS = 9
MAX_SMALL_OPTIONS = {"select": 4, "multiselect": 4, "radio": 3, "checkbox": 3}
RICH_PREFIX = "rich."
THEMES = ("plain", "ink", "forest", "rose", "sand", "night")
_KEY = re.compile(
    r"(?P<kind>[a-z_]+)\.(?P<size>small|full)\.(?P<layout>L\d+)\.s(?P<seed>\d+)(\.(?P<obstacle>[a-z_]+))?"
)


@lru_cache(maxsize=16_384)
def make_site(key: str) -> Site:
    """Build the site of a key; equal keys give equal sites on every machine. Raises ConfigError for a malformed key."""
    if key.startswith(RICH_PREFIX):
        from harness.sites.rich.factory import make_rich_site

        return make_rich_site(key)
    match = _KEY.fullmatch(key)
    if match is None or match["layout"] not in LAYOUTS or match["obstacle"] not in (None, *OBSTACLES):
        raise ConfigError(
            f"no site key: '{key}'. Expected such as 'contact.small.L3.s17', layouts {', '.join(LAYOUTS)}; for the "
            f"newer design with one of {', '.join(OBSTACLES)} at its end, such as 'contact.small.L3.s17.consent'."
        )
    if match["obstacle"] is not None:
        return newer(make_site(older_key(key)), match["obstacle"])  # type: ignore[arg-type]
    layout, size = LAYOUTS[match["layout"]], match["size"]
    rng = python_random(int(match["seed"]), "site", match["kind"], size, layout.name)
    return assemble(key, form(match["kind"]), layout, size, int(match["seed"]), rng)  # type: ignore[arg-type]


def assemble(key: str, spec: FormSpec, layout: Layout, size: Size, seed: int, rng: Random) -> Site:
    """Draw everything about a site of this form."""
    held_out = layout.is_held_out
    chosen = _choose_fields(spec, size, rng)
    decorate = _Decorator(size=size, is_held_out=held_out, rng=rng, chosen=chosen)
    pages = _pages(spec, layout, chosen, decorate, rng)
    return Site(
        key=key,
        form=spec,
        size=size,
        layout=layout.name,
        seed=seed,
        is_held_out=held_out,
        brand=rng.choice(vocabulary.BRANDS),
        theme=rng.choice(THEMES),
        has_native_validation=rng.random() < 0.7,
        done=rng.choice(vocabulary.DONE.pool(held_out)),
        pages=pages,
    )


def num_controls(field: FieldSpec, size: Size) -> int:
    """Lines that a field takes in an observation: one, or one an option."""
    if field.kind not in ("radio", "checkbox") or not field.options:
        return 1
    return len(field.options) if size == "full" else min(len(field.options), MAX_SMALL_OPTIONS[field.kind])


def _choose_fields(spec: FormSpec, size: Size, rng: Random) -> list[FieldSpec]:
    """All fields of rank 0 (full: all), and further ones of rank 1 by seed as far as there is room."""
    if size == "full":
        return list(spec.fields)
    chosen = {item.id for item in spec.fields if item.rank == 0}
    used = sum(num_controls(item, size) for item in spec.fields if item.id in chosen)
    for unit in rng.sample(units := _optional_units(spec), len(units)):
        cost = sum(num_controls(item, size) for item in unit)
        if used + cost <= MAX_SMALL_CONTROLS and rng.random() < 0.7:
            chosen |= {item.id for item in unit}
            used += cost
    return [item for item in spec.fields if item.id in chosen]


def _optional_units(spec: FormSpec) -> list[list[FieldSpec]]:
    """Fields of rank 1, each with those that depend on it."""
    candidates = [item for item in spec.fields if item.rank == 1]
    ids = {item.id for item in candidates}
    heads = [item for item in candidates if item.when is None or item.when.field not in ids]
    return [[head, *(item for item in candidates if item.when and item.when.field == head.id)] for head in heads]


class _Decorator:
    """Turns a FieldSpec into a SiteField with the words, names and defaults of one site."""

    def __init__(self, *, size: Size, is_held_out: bool, rng: Random, chosen: list[FieldSpec]) -> None:
        self.size, self.is_held_out, self.rng = size, is_held_out, rng
        self.naming = Naming.draw(rng)
        self.placeholder = rng.choice(vocabulary.PLACEHOLDER.pool(is_held_out))
        self.deciding = {item.when.field for item in chosen if item.when}
        self.answers_needed = {(item.when.field, item.when.answer) for item in chosen if item.when}

    def __call__(self, spec: FieldSpec, number: int) -> SiteField:
        label = self.rng.choice(spec.labels.pool(self.is_held_out))
        options = tuple(
            Option(text=text, value=self.naming.option(text, at)) for at, text in enumerate(self._options(spec))
        )
        default, placeholder = self._default(spec, options)
        return SiteField(
            spec=spec,
            name=self.naming.name(spec.id, label, number),
            html_id=self.naming.html_id(spec.id, number),
            label=label,
            options=options,
            default=default,
            placeholder=placeholder,
        )

    def _options(self, spec: FieldSpec) -> list[str]:
        options = list(spec.options)
        room = MAX_SMALL_OPTIONS.get(spec.kind, 0)
        if self.size == "small" and room and len(options) > room:
            needed = [text for text in options if (spec.id, text) in self.answers_needed]
            others = [text for text in options if text not in needed]
            kept = {*needed, *self.rng.sample(others, room - len(needed))}
            options = [text for text in options if text in kept]
        return options if spec.is_ordered else self.rng.sample(options, len(options))

    def _default(self, spec: FieldSpec, options: tuple[Option, ...]) -> tuple[tuple[str, ...], str]:
        """What the untouched field sends, and the caption of an empty option. A deciding field starts empty."""
        texts = [option.text for option in options]
        is_free = spec.when is None and spec.id not in self.deciding
        if spec.kind == "select":
            starts_empty = spec.required or not is_free or self.rng.random() < 0.6
            return ((), self.placeholder) if starts_empty else ((texts[0],), "")
        prefill = [value for value in spec.prefill if not texts or value in texts]
        if is_free and prefill and self.rng.random() < 0.5:
            return (self.rng.choice(prefill),), ""
        return (), ""


def _pages(
    spec: FormSpec, layout: Layout, chosen: list[FieldSpec], decorate: _Decorator, rng: Random
) -> tuple[SitePage, ...]:
    held_out = decorate.is_held_out
    pages: list[SitePage] = []
    number = 0
    for at, page in enumerate(spec.pages, start=1):
        fields: list[SiteField] = []
        roots = [item for item in chosen if item.page == at and not _depends_on_same_page(item, chosen)]
        for item in _with_dependents(layout.arrange(roots, rng), chosen):
            number += 1
            fields.append(decorate(item, number))
        fields = _branches_in_order(fields, [field for page in pages for field in page.fields])
        is_last_form = at == len(spec.pages)
        caption = vocabulary.SUBMIT if is_last_form and not spec.has_review else vocabulary.NEXT
        caption = vocabulary.REVIEW if is_last_form and spec.has_review else caption
        button = rng.choice(caption.pool(held_out))
        pages.append(SitePage(title=rng.choice(page.titles.pool(held_out)), fields=tuple(fields), button=button))
    if spec.has_review:
        title = rng.choice(vocabulary.REVIEW_TITLE.pool(held_out))
        button = rng.choice(vocabulary.CONFIRM.pool(held_out))
        pages.append(SitePage(title=title, fields=(), button=button, is_review=True))
    return tuple(pages)


def _branches_in_order(fields: list[SiteField], earlier: list[SiteField]) -> list[SiteField]:
    """Sort neighbours that depend on an earlier page by the option that shows them.

    Such fields are never on screen together, so only this rule gives them one reading order.
    """
    deciding = {item.id: (at, item.texts) for at, item in enumerate(earlier)}
    ordered: list[SiteField] = []
    for depends, run in groupby(fields, key=lambda item: item.spec.when and item.spec.when.field in deciding):
        neighbours = list(run)
        ordered += sorted(neighbours, key=lambda item: _branch(item, deciding)) if depends else neighbours
    return ordered


def _branch(field: SiteField, deciding: dict[str, tuple[int, tuple[str, ...]]]) -> tuple[int, int]:
    assert field.spec.when is not None
    at, options = deciding[field.spec.when.field]
    return at, options.index(field.spec.when.answer) if options else 0


def _depends_on_same_page(item: FieldSpec, chosen: list[FieldSpec]) -> bool:
    return item.when is not None and any(other.id == item.when.field and other.page == item.page for other in chosen)


def _with_dependents(roots: list[FieldSpec], chosen: list[FieldSpec]) -> list[FieldSpec]:
    """Each field, then at once the fields of its page that depend on it."""
    ordered: list[FieldSpec] = []
    for root in roots:
        below = [item for item in chosen if item.when and item.when.field == root.id and item.page == root.page]
        ordered += [root, *_with_dependents(below, chosen)]
    return ordered
