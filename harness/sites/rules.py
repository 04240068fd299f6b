"""Checks over several fields that a browser cannot make: only the server knows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.sites.schema import Answers


@dataclass(frozen=True, slots=True)
class Before:
    """One date must come before another."""

    first: str
    second: str

    @property
    def fields(self) -> tuple[str, ...]:
        """Ids of the fields that the rule reads."""
        return (self.first, self.second)

    def error(self, answers: Answers, labels: Mapping[str, str]) -> str | None:
        """ISO dates compare as text."""
        first, second = answers[self.first], answers[self.second]
        if first and second and first[0] >= second[0]:
            return f"{labels[self.second]} must be after {labels[self.first]}"
        return None


@dataclass(frozen=True, slots=True)
class Different:
    """Two answers must differ."""

    first: str
    second: str

    @property
    def fields(self) -> tuple[str, ...]:
        """Ids of the fields that the rule reads."""
        return (self.first, self.second)

    def error(self, answers: Answers, labels: Mapping[str, str]) -> str | None:
        """Compared without case."""
        first, second = answers[self.first], answers[self.second]
        if first and second and first[0].casefold() == second[0].casefold():
            return f"{labels[self.first]} and {labels[self.second]} must differ"
        return None


@dataclass(frozen=True, slots=True)
class AtMost:
    """A number is bounded by the option chosen elsewhere, such as guests by the kind of room."""

    number: str
    option: str
    limits: tuple[tuple[str, int], ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """Ids of the fields that the rule reads."""
        return (self.number, self.option)

    def error(self, answers: Answers, labels: Mapping[str, str]) -> str | None:
        """Options without a limit allow every number."""
        number, option = answers[self.number], answers[self.option]
        limit = dict(self.limits).get(option[0]) if option else None
        if number and limit is not None and number[0].isdigit() and int(number[0]) > limit:
            return f"{labels[self.number]}: at most {limit} for {option[0]}"
        return None
