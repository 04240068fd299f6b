"""What kinds of errands share: drafts, values of a person and of things, and the words of an instruction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from harness.errands.schema import Entry, Page
from harness.sites import vocabulary as words
from harness.sites.schema import TICKED


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An errand without its key and its brand; see `harness.errands.schema.Errand`."""

    instruction: str
    pages: tuple[Page, ...]
    path: tuple[str, ...]
    answer: str = ""
    done: str = "Thank you."


class Kind(Protocol):
    """A kind of errand."""

    def __call__(self, rng: Random, difficulty: int) -> Draft:
        """Draw an errand of a difficulty from 1 to 3."""
        ...


def _first(rng: Random) -> Entry:
    return Entry(name="first", label="First name", wanted=rng.choice(words.FIRST_NAMES))


def _last(rng: Random) -> Entry:
    return Entry(name="last", label="Last name", wanted=rng.choice(words.LAST_NAMES))


def _city(rng: Random) -> Entry:
    return Entry(name="city", label="City", wanted=rng.choice(words.CITIES))


def _street(rng: Random) -> Entry:
    return Entry(name="street", label="Street", wanted=f"{rng.randint(1, 99)} {rng.choice(words.STREETS)}")


def _company(rng: Random) -> Entry:
    return Entry(name="company", label="Company", wanted=rng.choice(words.COMPANIES))


def _guests(rng: Random) -> Entry:
    return Entry(name="guests", label="Guests", kind="number", wanted=str(rng.randint(2, 60)))


def _day(rng: Random) -> Entry:
    wanted = f"{rng.randint(1, 28)} {rng.choice(('March', 'April', 'May', 'June', 'July'))}"
    return Entry(name="day", label="Day", wanted=wanted)


def _room(rng: Random) -> Entry:
    options = tuple(rng.sample(("Single", "Double", "Family", "Suite", "Studio"), 3))
    return Entry(name="room", label="Room", kind="select", options=options, wanted=rng.choice(options))


def _meal(rng: Random) -> Entry:
    options = ("Breakfast", "Half board", "No meals")
    return Entry(name="meal", label="Meal", kind="radio", options=options, wanted=rng.choice(options))


def _news(rng: Random) -> Entry:
    return Entry(name="news", label="Newsletter", kind="checkbox", wanted=TICKED, is_required=False)


def _note(rng: Random) -> Entry:
    return Entry(name="wish", label="Wish", wanted=rng.choice(words.PHRASES))


ENTRIES = (_first, _last, _city, _street, _company, _guests, _day, _room, _meal, _news, _note)


def entries(rng: Random, count: int) -> list[Entry]:
    """Draw fields that the task gives values for; no two are the same."""
    return [make(rng) for make in rng.sample(ENTRIES, count)]


def said(items: Iterable[Entry]) -> str:
    """The values that are asked for, in words."""
    return ", ".join(
        item.label if item.kind == "checkbox" else f"{item.label} {item.first_try or item.wanted}"
        for item in items
        if item.wanted is not None
    )


def shuffled(rng: Random, items: Sequence[Entry]) -> list[Entry]:
    """The same fields in another order, as an instruction may name them."""
    return rng.sample(list(items), len(items))


def ask(rng: Random, what: str, items: Sequence[Entry]) -> str:
    """An instruction: what to do, and the values."""
    return f"{what}: {said(shuffled(rng, items))}."


BUTTONS = ("Next", "Continue", "Go on")
SEND = ("Send", "Submit", "Save", "Confirm")
