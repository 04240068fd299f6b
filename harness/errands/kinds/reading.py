"""Values that stand on a page and are needed on another one, or as an answer."""

from __future__ import annotations

from random import Random

from harness.errands.kinds.base import BUTTONS, SEND, Draft, entries, said
from harness.errands.schema import NEVER, Entry, Link, Page
from harness.sites import vocabulary as words


def _number(rng: Random) -> str:
    return str(rng.randint(1001, 9899))


def lookup(rng: Random, difficulty: int) -> Draft:
    """The extension of a person stands in a directory; difficulty adds people and fields."""
    people = rng.sample(words.FIRST_NAMES, 2 * difficulty + 1)
    numbers = {person: _number(rng) for person in people}
    wanted = rng.choice(people)
    extension = Entry(name="extension", label="Extension", wanted=numbers[wanted])
    others = entries(rng, difficulty - 1)
    form = Page(
        key="form",
        title="Book a call",
        entries=(extension, *others),
        button=rng.choice(SEND),
        links=(Link(text="Directory", to="directory"),),
        needs=("directory",),
        follow=("directory",),
    )
    directory = Page(
        key="directory",
        title="Directory",
        passages=tuple(f"{person}: {number}" for person, number in numbers.items()),
        links=(Link(text="Book a call", to="form"),),
        follow=("form",),
        remember=numbers[wanted],
    )
    rest = f" Also {said(others)}." if others else ""
    return Draft(
        instruction=f"Book a call with the extension of {wanted}, which the directory has.{rest}",
        pages=(form, directory),
        path=("form", "directory"),
    )


def code(rng: Random, difficulty: int) -> Draft:
    """A code is shown on the first page and asked for on the last one; difficulty adds pages between."""
    secret = f"{rng.choice('ABCDEFGH')}{_number(rng)}"
    between = entries(rng, difficulty)
    pages = [
        Page(
            key="start",
            title="Before you begin",
            passages=(f"Your code is {secret}. You will need it at the end.",),
            links=(Link(text="Begin", to="part1"),),
            follow=("part1",),
            remember=secret,
        )
    ]
    for at, item in enumerate(between, start=1):
        pages.append(
            Page(
                key=f"part{at}",
                title=f"Question {at}",
                entries=(item,),
                button=rng.choice(BUTTONS),
                next=f"part{at + 1}" if at < difficulty else "end",
            )
        )
    last = Entry(name="code", label="Code", wanted=secret)
    pages.append(Page(key="end", title="Your code", entries=(last,), button=rng.choice(SEND)))
    return Draft(
        instruction=f"Answer the questions: {said(between)}. At the end, give the code that you were shown.",
        pages=tuple(pages),
        path=tuple(page.key for page in pages),
    )


def compare(rng: Random, difficulty: int) -> Draft:
    """Prices stand on pages of their own; the cheapest one is wanted."""
    names = rng.sample(("Amber", "Basil", "Coral", "Dune", "Ember"), difficulty + 1)
    prices = rng.sample(range(11, 99), len(names))
    best = names[prices.index(min(prices))]
    keys = {name: name.lower() for name in names}
    offers = Page(
        key="offers",
        title="Offers",
        links=tuple(Link(text=name, to=keys[name]) for name in names),
        follow=(*keys.values(), keys[best]),
    )
    details = [
        Page(
            key=keys[name],
            title=f"Offer {name}",
            passages=(f"{name} costs {price} EUR a month.",),
            button="Choose",
            next="confirm",
            gives=(("offer", name),),
            links=(Link(text="All offers", to="offers"),),
            needs=tuple(keys.values()) if name == best else (NEVER,),
            follow=("offers",),
            remember=f"{name} {price}",
        )
        for name, price in zip(names, prices, strict=True)
    ]
    confirm = Page(key="confirm", title="Your choice", button=rng.choice(SEND))
    return Draft(
        instruction="Look at every offer and choose the one that costs least.",
        pages=(offers, *details, confirm),
        path=("offers", keys[best], "confirm"),
    )


def answer(rng: Random, difficulty: int) -> Draft:
    """A question that a page answers; difficulty adds pages to look for it."""
    topics = rng.sample(("Museum", "Library", "Theatre", "Pool", "Market"), difficulty + 1)
    hours = {topic: f"{rng.randint(7, 11)}:{rng.choice(('00', '15', '30', '45'))}" for topic in topics}
    wanted = rng.choice(topics)
    home = Page(
        key="home",
        title="The town",
        links=tuple(Link(text=topic, to=topic.lower()) for topic in topics),
        follow=(wanted.lower(),),
    )
    details = tuple(
        Page(
            key=topic.lower(),
            title=topic,
            passages=(f"{topic} opens at {hour}.",),
            links=(Link(text="The town", to="home"),),
            follow=("home",),
        )
        for topic, hour in hours.items()
    )
    return Draft(
        instruction=f"When does the {wanted} open? Answer with the time.",
        pages=(home, *details),
        path=("home", wanted.lower()),
        answer=hours[wanted],
    )
