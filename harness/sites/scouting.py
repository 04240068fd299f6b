"""Valid answers that lead a scout past every page of a site, whichever branch it takes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from random import Random

from dllm_rl.errors import ConfigError
from dllm_rl.seeding import python_random
from harness.sites.answers import all_errors, site_defaults
from harness.sites.factory import make_site
from harness.sites.schema import TICKED, Answers, Site
from harness.sites.values import draw_persona

MAX_ATTEMPTS = 500


def scout_answers(site: Site) -> dict[str, tuple[str, ...]]:
    """Values for every field by HTML name, as visible texts.

    Any one deciding field (see `branches`) may be answered otherwise, and the server still accepts every page. Fields
    of branches that are not open have their values too; they apply once the branch is open.
    """
    return dict(_answers_of(site.key))


def branches(site: Site) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each (HTML name, answer) that opens or closes other fields."""
    deciding = {item.spec.when.field for item in site.fields if item.spec.when}
    for item in site.fields:
        if item.id in deciding:
            answers = [(text,) for text in item.texts] if item.options else [(), (TICKED,)]
            yield from ((item.name, answer) for answer in answers)


@lru_cache(maxsize=4096)
def _answers_of(key: str) -> Answers:
    site = make_site(key)
    rng = python_random(site.seed, "scout", key)
    for _ in range(MAX_ATTEMPTS):
        answers = _draw(site, rng)
        walks = [answers, *({**answers, name: answer} for name, answer in branches(site))]
        if not any(all_errors(site, walk) for walk in walks):
            return answers
    raise ConfigError(f"no answers pass all pages of site {key}. Check the rules of its form.")


def _draw(site: Site, rng: Random) -> dict[str, tuple[str, ...]]:
    """Draw every field; boxes stay as they are, unless they are required."""
    persona = draw_persona(rng, "small")
    answers = site_defaults(site)
    for item in site.fields:
        if item.options:
            answers[item.name] = (rng.choice(item.texts),)
        elif item.spec.kind == "checkbox" and item.spec.required:
            answers[item.name] = (TICKED,)
        elif item.spec.draw is not None:
            answers[item.name] = (item.written(item.spec.draw(rng, persona, "small")),)
    return answers
