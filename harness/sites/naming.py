"""How a site names things in HTML: `name` and `id` attributes and option values differ from site to site."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

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
