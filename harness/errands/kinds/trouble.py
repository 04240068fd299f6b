"""Sites that are busy, slow, covered by a notice, or ask to sign in again in the middle."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from harness.errands.kinds.base import Draft
from harness.errands.kinds.wizards import wizard
from harness.errands.schema import Entry, Page
from harness.sites import vocabulary as words


def _last_changed(draft: Draft, **changes: object) -> Draft:
    """A wizard with another last page."""
    return replace(draft, pages=(*draft.pages[:-1], replace(draft.pages[-1], **changes)))  # type: ignore[arg-type]


def busy(rng: Random, difficulty: int) -> Draft:
    """The last page is refused once to three times, and then taken."""
    draft = _last_changed(wizard(rng, 1), num_refusals=difficulty)
    return replace(draft, instruction=f"{draft.instruction} If the site is busy, send it again.")


def queue(rng: Random, difficulty: int) -> Draft:
    """After the first page there is a queue, which moves once for every `wait`."""
    draft = wizard(rng, 1)
    first, last = draft.pages
    wait = Page(
        key="queue",
        title="Please wait",
        passages=("You are in a queue. This page goes on by itself.",),
        num_waits=difficulty,
        next=last.key,
    )
    pages = (replace(first, next="queue"), wait, last)
    return replace(draft, pages=pages, path=(first.key, "queue", last.key))


NOTICES = ("We use cookies", "Try our app", "Rate this page", "New terms apply")


def notice(rng: Random, difficulty: int) -> Draft:
    """A notice covers the last pages until it is closed."""
    draft = wizard(rng, difficulty)
    covered = {page.key for page in draft.pages[-difficulty:]}
    pages = tuple(replace(page, notice=rng.choice(NOTICES)) if page.key in covered else page for page in draft.pages)
    return replace(draft, pages=pages)


def expired(rng: Random, difficulty: int) -> Draft:
    """The last page asks to sign in before it takes anything; difficulty adds pages before it."""
    draft = _last_changed(wizard(rng, difficulty), interruption="sign-in")
    user, password = rng.choice(words.FIRST_NAMES).lower(), f"{rng.choice('bcdfgh')}{rng.randint(1001, 9899)}"
    fields = (
        Entry(name="sign-user", label="User", wanted=user, is_recorded=False),
        Entry(name="sign-password", label="Password", wanted=password, is_recorded=False),
    )
    sign_in = Page(key="sign-in", title="Sign in", entries=fields, button="Sign in")
    return replace(
        draft,
        instruction=f"{draft.instruction} If you must sign in: user {user}, password {password}.",
        pages=(*draft.pages, sign_in),
    )
