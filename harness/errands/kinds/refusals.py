"""Values that the server refuses, with an answer that says how to go on."""

from __future__ import annotations

import re
from random import Random

from harness.errands.kinds.base import SEND, Draft, ask, entries
from harness.errands.schema import Check, Entry, Page
from harness.sites import vocabulary as words


def _phone(rng: Random) -> Entry:
    digits = "".join(rng.choice("123456789") for _ in range(6))
    return Entry(
        name="phone",
        label="Phone",
        wanted=digits,
        first_try=f"{digits[:3]}-{digits[3:]}",
        check=Check(accepts=r"\d{6}", message="write the digits without a dash."),
    )


def _code(rng: Random) -> Entry:
    digits = "".join(rng.choice("123456789") for _ in range(4))
    return Entry(
        name="member",
        label="Member number",
        wanted=f"M{digits}",
        first_try=digits,
        check=Check(accepts=r"M\d{4}", message="put an M before the number."),
    )


def _amount(rng: Random) -> Entry:
    amount = rng.randint(11, 99)
    return Entry(
        name="amount",
        label="Amount",
        wanted=f"{amount}",
        first_try=f"{amount} EUR",
        check=Check(accepts=r"\d+", message="write the number without EUR."),
    )


def reformat(rng: Random, difficulty: int) -> Draft:
    """One to three values must be written otherwise than the task has them."""
    wrong = [make(rng) for make in rng.sample((_phone, _code, _amount), difficulty)]
    items = rng.sample([*wrong, *entries(rng, 1)], len(wrong) + 1)
    page = Page(key="form", title="Contact form", entries=tuple(items), button=rng.choice(SEND))
    return Draft(instruction=ask(rng, "Fill in the contact form", items), pages=(page,), path=("form",))


def taken(rng: Random, difficulty: int) -> Draft:
    """A name is taken, and the server proposes another one; difficulty adds fields."""
    first, last = rng.choice(words.FIRST_NAMES), rng.choice(words.LAST_NAMES)
    free = f"{first}{last}".lower()
    name = Entry(
        name="user",
        label="User name",
        wanted=free,
        first_try=first.lower(),
        check=Check(accepts=re.escape(free), message=f"this one is taken. {free} is free."),
    )
    items = rng.sample([name, *entries(rng, difficulty)], difficulty + 1)
    page = Page(key="form", title="New user", entries=tuple(items), button=rng.choice(SEND))
    rest = ask(rng, "Make a new user", items)
    return Draft(instruction=f"{rest} If the name is taken, use what is free.", pages=(page,), path=("form",))


def limited(rng: Random, difficulty: int) -> Draft:
    """There is less of something than the task would like; difficulty adds such things."""
    things = rng.sample(("Chairs", "Tables", "Lamps", "Plants", "Screens"), difficulty)
    items = []
    for thing in things:
        left, wish = rng.randint(2, 20), rng.randint(21, 60)
        accepts = "|".join(str(number) for number in range(1, left + 1))
        items.append(
            Entry(
                name=thing.lower(),
                label=thing,
                wanted=str(left),
                first_try=str(wish),
                check=Check(accepts=accepts, message=f"only {left} left."),
            )
        )
    items += entries(rng, 1)
    page = Page(key="order", title="Order", entries=tuple(items), button=rng.choice(SEND))
    rest = ask(rng, "Order", items)
    return Draft(instruction=f"{rest} If there are too few, take what is left.", pages=(page,), path=("order",))
