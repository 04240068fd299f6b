"""Forms over several pages, of which a policy sees one at a time."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from harness.errands.kinds.base import BUTTONS, SEND, Draft, ask, entries
from harness.errands.schema import Entry, Page

TITLES = ("Your details", "More about you", "Your stay", "Last questions")


def wizard(rng: Random, difficulty: int) -> Draft:
    """Two to four pages that nobody has seen before."""
    count = difficulty + 1
    sizes = [rng.randint(1, 2) for _ in range(count)]
    drawn = entries(rng, sum(sizes))
    pages = []
    for at, size in enumerate(sizes):
        own, drawn = drawn[:size], drawn[size:]
        is_last = at + 1 == count
        pages.append(
            Page(
                key=f"part{at + 1}",
                title=TITLES[at],
                entries=tuple(own),
                button=rng.choice(SEND if is_last else BUTTONS),
                next="" if is_last else f"part{at + 2}",
            )
        )
    asked = [item for page in pages for item in page.entries]
    return Draft(
        instruction=ask(rng, rng.choice(("Book a room", "Register", "Sign up")), asked),
        pages=tuple(pages),
        path=tuple(page.key for page in pages),
    )


def _decider(kinds: tuple[str, ...], chosen: str) -> Entry:
    return Entry(name="type", label="Account type", kind="radio", options=kinds, wanted=chosen)


def _renamed(item: Entry, kind: str) -> Entry:
    """A field of one branch; those of the others have names of their own."""
    return replace(item, name=f"{kind.lower()}-{item.name}")


BRANCHES = ("Private", "Company", "School", "Club")


def branch(rng: Random, difficulty: int) -> Draft:
    """The answer on the first page decides which page comes next; difficulty adds answers and fields."""
    kinds = BRANCHES[: difficulty + 1]
    chosen = rng.choice(kinds)
    decider = _decider(kinds, chosen)
    pages = [
        Page(
            key="start",
            title="Open an account",
            entries=(decider,),
            button=rng.choice(BUTTONS),
            branches=tuple(("type", kind, kind.lower()) for kind in kinds),
            next=kinds[0].lower(),
        )
    ]
    asked = [decider]
    for kind in kinds:
        own = [_renamed(item, kind) for item in entries(rng, min(3, difficulty + rng.randint(0, 1)))]
        asked += own if kind == chosen else []
        pages.append(Page(key=kind.lower(), title=f"{kind} account", entries=tuple(own), button=rng.choice(SEND)))
    return Draft(instruction=ask(rng, "Open an account", asked), pages=tuple(pages), path=("start", chosen.lower()))
