"""How values are drawn: one small object a kind of value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from random import Random
from typing import Literal

from harness.sites import vocabulary as words
from harness.sites.schema import Persona, Size


def draw_persona(rng: Random, size: Size) -> Persona:
    """Draw a person; the email address is always ASCII and built from the names of the small pools."""
    first, last = rng.choice(words.FIRST_NAMES), rng.choice(words.LAST_NAMES)
    email = f"{first}.{last}@{rng.choice(words.EMAIL_DOMAINS)}".lower()
    if size == "full" and rng.random() < 0.3:
        first, last = rng.choice(words.FIRST_NAMES_FULL), rng.choice(words.LAST_NAMES_FULL)
    return Persona(first=first, last=last, email=email)


@dataclass(frozen=True, slots=True)
class OfPersona:
    """A name or the email address of the task's person."""

    part: Literal["first", "last", "full", "email"]

    def __call__(self, rng: Random, persona: Persona, size: Size) -> str:
        """Read the person's record."""
        return getattr(persona, self.part)


@dataclass(frozen=True, slots=True)
class Pool:
    """One of a closed pool; full sites draw from `full` too."""

    values: tuple[str, ...]
    full: tuple[str, ...] = ()

    def __call__(self, rng: Random, persona: Persona, size: Size) -> str:
        """Draw from the pool; on full sites every second time from its long part."""
        if size == "full" and self.full and rng.random() < 0.5:
            return rng.choice(self.full)
        return rng.choice(self.values)


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number between two bounds, both included, in steps."""

    low: int
    high: int
    step: int = 1

    def __call__(self, rng: Random, persona: Persona, size: Size) -> str:
        """Draw in digits."""
        return str(rng.randrange(self.low, self.high + 1, self.step))


@dataclass(frozen=True, slots=True)
class Day:
    """An ISO date between two, both included."""

    low: str
    high: str

    def __call__(self, rng: Random, persona: Persona, size: Size) -> str:
        """Draw a day."""
        low, high = date.fromisoformat(self.low), date.fromisoformat(self.high)
        return (low + timedelta(days=rng.randint(0, (high - low).days))).isoformat()


@dataclass(frozen=True, slots=True)
class Digits:
    """A pattern in which every `0` becomes a digit, such as `555-0000`."""

    pattern: str

    def __call__(self, rng: Random, persona: Persona, size: Size) -> str:
        """Fill in the digits."""
        return "".join(rng.choice("0123456789") if letter == "0" else letter for letter in self.pattern)


@dataclass(frozen=True, slots=True)
class Address:
    """A house number and a street."""

    def __call__(self, rng: Random, persona: Persona, size: Size) -> str:
        """Draw such as `12 Oak Street`."""
        return f"{rng.randint(1, 99)} {rng.choice(words.STREETS)}"
