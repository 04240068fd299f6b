"""The newer design of the basic sites: what stands between right fields and an accepted form.

A newer site is an older one with one obstacle before its last button. Its key is the older key and the obstacle's name:
`contact.small.L3.s17.second_button`. Nothing else differs: fields, words and their refs are those of the older design.

- `second_button`: where the older design had the button that hands the form in stands one that keeps a draft.
- `consent`: a required box that no instruction names.
- `review`: a last page with a button of its own.
- `notice`: a notice lies over the button until it is closed.
- `server_field`: a list that only the server demands, without a star; any of its options will do.
- `second_attempt`: the first attempt is answered with the request to check the form and send it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from dllm_rl.records.tasks import Observation
from dllm_rl.seeding import python_random
from harness.sites import vocabulary
from harness.sites.schema import DISMISS, DRAFT, OBSTACLES, Behaviour, Extra, Obstacle, Site, SitePage

CHECK_AGAIN = "Please check what you entered and send the form again."


def older_key(key: str) -> str:
    """The key of the same site in its older design."""
    head, _, obstacle = key.rpartition(".")
    return head if obstacle in OBSTACLES else key


def draw_obstacle(kind: str, seed: int, obstacles: Sequence[Obstacle]) -> Obstacle:
    """The obstacle of one site, of those that are allowed."""
    return python_random(seed, "obstacle", kind).choice(obstacles)


def newer(site: Site, obstacle: Obstacle) -> Site:
    """The newer design of an older site."""
    rng = python_random(site.seed, "newer", obstacle, site.key)
    pages, behaviour = site.pages, site.behaviour
    if obstacle == "second_attempt":
        behaviour = Behaviour(num_refusals=1, refusal=CHECK_AGAIN)
    elif obstacle == "review":
        pages = _with_review(pages, site.is_held_out, rng)
    else:
        extra = _EXTRAS[obstacle](site.is_held_out, rng)
        pages = (*pages[:-1], replace(pages[-1], extras=(extra,)))
    return replace(site, key=f"{site.key}.{obstacle}", obstacle=obstacle, pages=pages, behaviour=behaviour)


def num_finish_lines(site: Site) -> int:
    """Lines of a finished plan that no field asks for: a button a page, and what the newer design adds to them."""
    if site.obstacle is None:
        return len(site.pages)
    extras = [item for item in site.extras if item.name != DRAFT]
    return len(site.pages) + len(extras) + site.behaviour.num_refusals


def _with_review(pages: tuple[SitePage, ...], is_held_out: bool, rng: Random) -> tuple[SitePage, ...]:
    title = rng.choice(vocabulary.LAST_STEP.pool(is_held_out))
    button = rng.choice(vocabulary.CONFIRM.pool(is_held_out))
    onward = rng.choice(vocabulary.REVIEW.pool(is_held_out))
    last = SitePage(title=title, fields=(), button=button, is_review=True)
    return (*pages[:-1], replace(pages[-1], button=onward), last)


def _draft(is_held_out: bool, rng: Random) -> Extra:
    return Extra(name=DRAFT, kind="button", caption=rng.choice(vocabulary.DRAFT.pool(is_held_out)))


def _consent(is_held_out: bool, rng: Random) -> Extra:
    return Extra(name="consent", kind="checkbox", caption=rng.choice(vocabulary.CONSENT.pool(is_held_out)))


def _notice(is_held_out: bool, rng: Random) -> Extra:
    caption = rng.choice(vocabulary.OBSTACLE_CAPTIONS["notice"].pool(is_held_out))
    return Extra(name=f"{DISMISS}notice", kind="button", caption=caption)


def _server_field(is_held_out: bool, rng: Random) -> Extra:
    caption = rng.choice(vocabulary.SOURCE.pool(is_held_out))
    options = tuple(rng.sample(vocabulary.SOURCES, 3))
    return Extra(name="source", kind="select", caption=caption, options=options)


_EXTRAS = {"second_button": _draft, "consent": _consent, "notice": _notice, "server_field": _server_field}


def as_in_the_older_design(observation: Observation, site: Site) -> Observation:
    """What a recording of the older design finds on the newer one: a button in the old one's place, nothing new."""
    extras = {item.name for item in site.extras}
    num_pages = len(observation.titles) - (site.obstacle == "review")
    controls = [item for item in observation.controls if item.page_number <= num_pages and item.field not in extras]
    draft = next((item for item in observation.controls if item.field == DRAFT), None)
    if draft is not None:
        controls[-1] = replace(draft, field="")
    return Observation(titles=observation.titles[:num_pages], controls=tuple(controls))
