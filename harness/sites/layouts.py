"""Layout families: how a page looks and in which order its fields stand; `L7` to `L9` belong to `test_layout`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from harness.sites.schema import FieldSpec

Arrange = Callable[[list[FieldSpec], Random], list[FieldSpec]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One family. template: the file in `templates/` that lays out the fields."""

    name: str
    template: str
    arrange: Arrange
    is_held_out: bool = False


def as_listed(fields: list[FieldSpec], rng: Random) -> list[FieldSpec]:
    """In the order of the specification."""
    return list(fields)


def shuffled(fields: list[FieldSpec], rng: Random) -> list[FieldSpec]:
    """In any order."""
    return rng.sample(fields, len(fields))


def required_first(fields: list[FieldSpec], rng: Random) -> list[FieldSpec]:
    """What must be answered, then the rest."""
    return sorted(shuffled(fields, rng), key=lambda item: not item.required)


def choices_first(fields: list[FieldSpec], rng: Random) -> list[FieldSpec]:
    """Options and boxes, then what is typed."""
    return sorted(shuffled(fields, rng), key=lambda item: item.draw is not None)


def typed_first(fields: list[FieldSpec], rng: Random) -> list[FieldSpec]:
    """What is typed, then options and boxes."""
    return sorted(shuffled(fields, rng), key=lambda item: item.draw is None)


def reversed_order(fields: list[FieldSpec], rng: Random) -> list[FieldSpec]:
    """From the last of the specification to the first."""
    return list(reversed(fields))


def by_kind(fields: list[FieldSpec], rng: Random) -> list[FieldSpec]:
    """Fields of one kind side by side."""
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
