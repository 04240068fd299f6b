"""Things that must be found among others: searched for, scrolled to, put together, or corrected."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from harness.errands.kinds.base import SEND, Draft, entries
from harness.errands.schema import Entry, Link, Page
from harness.sites import vocabulary as words


def _items(rng: Random, count: int) -> list[str]:
    """Names of things, such as `Blue lamp`; no two are the same."""
    colours = ("Blue", "Green", "Red", "White", "Black", "Grey", "Brown", "Pink")
    things = ("lamp", "chair", "table", "clock", "shelf", "mirror", "carpet")
    return rng.sample([f"{colour} {thing}" for colour in colours for thing in things], count)


def _item_page(name: str, *, following: str, button: str = "Choose") -> Page:
    return Page(
        key=name.lower().replace(" ", "-"),
        title=name,
        passages=(f"{name}, ready to be sent.",),
        button=button,
        next=following,
        gives=(("item", name),),
    )


def search(rng: Random, difficulty: int) -> Draft:
    """A list that is too long is searched; difficulty adds things that look alike."""
    items = _items(rng, 6 + 4 * difficulty)
    wanted = rng.choice(items)
    thing = wanted.split(" ")[1]
    query = Entry(name="query", label="Search for", wanted=thing, is_recorded=False)
    find = Page(key="find", title="Catalogue", entries=(query,), button="Search", next="found")
    pages = [_item_page(name, following="order") for name in items]
    chosen = next(page for page in pages if page.title == wanted)
    found = Page(
        key="found",
        title="Search results",
        links=tuple(Link(text=page.title, to=page.key) for page in pages),
        filtered_by="query",
        follow=(chosen.key,),
    )
    order = Page(key="order", title="Your order", button=rng.choice(SEND))
    return Draft(
        instruction=f"Search for {thing} and order the {wanted}.",
        pages=(find, found, *pages, order),
        path=("find", "found", chosen.key, "order"),
    )


def long_list(rng: Random, difficulty: int) -> Draft:
    """A list that does not fit into the window."""
    items = _items(rng, 8 + 8 * difficulty)
    wanted = rng.choice(items)
    pages = [_item_page(name, following="order") for name in items]
    chosen = next(page for page in pages if page.title == wanted)
    shelf = Page(
        key="all",
        title="All things",
        links=tuple(Link(text=page.title, to=page.key) for page in pages),
        follow=(chosen.key,),
    )
    order = Page(key="order", title="Your order", button=rng.choice(SEND))
    return Draft(instruction=f"Order the {wanted}.", pages=(shelf, *pages, order), path=("all", chosen.key, "order"))


def basket(rng: Random, difficulty: int) -> Draft:
    """Several things are put into a basket, one after another."""
    items = _items(rng, 3 + 2 * difficulty)
    wanted = rng.sample(items, difficulty + 1)
    pages = [replace(_item_page(name, following="shop", button="Add"), is_adding=True) for name in items]
    keys = {page.title: page.key for page in pages}
    shop = Page(
        key="shop",
        title="Shop",
        links=(*(Link(text=page.title, to=page.key) for page in pages), Link(text="Check out", to="pay")),
        follow=(*(keys[name] for name in wanted), "pay"),
    )
    pay = Page(key="pay", title="Check out", button=rng.choice(SEND))
    return Draft(
        instruction=f"Buy: {', '.join(wanted)}. Add each of them, then check out.",
        pages=(shop, *pages, pay),
        path=("shop", *(keys[name] for name in wanted), "pay"),
    )


def edit(rng: Random, difficulty: int) -> Draft:
    """One field of one record is changed, and nothing else; difficulty adds records and fields."""
    people = rng.sample(words.FIRST_NAMES, 2 + 2 * difficulty)
    chosen = rng.choice(people)
    pages = []
    asked = ""
    for person in people:
        own = [_held(item, person, rng) for item in entries(rng, difficulty + 1)]
        if person == chosen:
            at = rng.randrange(len(own))
            changed = own[at]
            asked = f"{changed.label} {'on' if changed.kind == 'checkbox' else changed.wanted}"
            own = [item if number == at else replace(item, wanted=None) for number, item in enumerate(own)]
        pages.append(Page(key=person.lower(), title=person, entries=tuple(own), button=rng.choice(SEND)))
    start = Page(
        key="people",
        title="People",
        links=tuple(Link(text=page.title, to=page.key) for page in pages),
        follow=(chosen.lower(),),
    )
    return Draft(
        instruction=f"Change the record of {chosen}: {asked}.",
        pages=(start, *pages),
        path=("people", chosen.lower()),
    )


def _held(item: Entry, person: str, rng: Random) -> Entry:
    """A field of a record, which holds another value than the one that is wanted."""
    others = {
        "first": words.FIRST_NAMES,
        "last": words.LAST_NAMES,
        "city": words.CITIES,
        "street": words.STREETS,
        "company": words.COMPANIES,
        "wish": words.PHRASES,
        "guests": ("1",),
        "day": ("1 August",),
        "news": ("",),
    }
    pool = [value for value in others.get(item.name, item.options) if value != item.wanted]
    return replace(item, name=f"{person.lower()}-{item.name}", value=rng.choice(pool))
