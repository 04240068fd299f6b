"""What the server makes of answers: which fields exist, what an untouched page sends, and which errors there are.

Answers map a field's HTML name to its values as seen by a user: option texts, "on" for a ticked box, typed text.
Nothing chosen and an empty text are both `()`. Rules over several fields are known to the server only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from harness.sites.schema import Answers, Site, SiteField, SitePage


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


_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def site_defaults(site: Site) -> dict[str, tuple[str, ...]]:
    """What an untouched site would send, for every field; `()` where a field is not shown at first."""
    return {item.name: item.default if item.spec.when is None else () for item in site.fields}


def is_visible(site: Site, field: SiteField, answers: Answers) -> bool:
    """True where the answers so far make this field exist."""
    when = field.spec.when
    if when is None:
        return True
    deciding = site.field(when.field)
    if deciding is None:
        return False
    return when.answer in answers.get(deciding.name, ()) and is_visible(site, deciding, answers)


def page_errors(site: Site, page_number: int, answers: Answers) -> tuple[str, ...]:
    """Messages for one page (from 1), each beginning with the label of its field; rules of several fields last."""
    page = site.pages[page_number - 1]
    shown = [item for item in page.fields if is_visible(site, item, answers)]
    errors = [message for item in shown for message in _field_errors(item, answers.get(item.name, ()))]
    return (*errors, *_rule_errors(site, page_number, answers))


def extra_errors(page: SitePage, answers: Answers) -> tuple[str, ...]:
    """Messages for what the page demands beside the fields of the form."""
    missing = (item for item in page.extras if item.is_demanded and not answers.get(item.name))
    return tuple(f"{item.caption} is required" for item in missing)


def all_errors(site: Site, answers: Answers) -> tuple[str, ...]:
    """Messages of all pages; empty where the server accepts."""
    return tuple(error for number in range(1, len(site.pages) + 1) for error in page_errors(site, number, answers))


def _rule_errors(site: Site, page_number: int, answers: Answers) -> Iterable[str]:
    """A rule is checked on the page where the last of its fields stands."""
    page_of = {item.id: number for number, page in enumerate(site.pages, start=1) for item in page.fields}
    labels = {item.id: item.label for item in site.fields}
    by_id = {item.id: _comparable(item, answers.get(item.name, ())) for item in site.fields}
    for rule in site.form.rules:
        if all(name in page_of for name in rule.fields) and max(page_of[name] for name in rule.fields) == page_number:
            message = rule.error(by_id, labels)
            if message:
                yield message


def _comparable(field: SiteField, values: tuple[str, ...]) -> tuple[str, ...]:
    """Dates in ISO, whatever the site's way to write them."""
    return tuple(map(field.iso, values)) if field.spec.kind == "date" else values


def _field_errors(field: SiteField, values: tuple[str, ...]) -> Iterable[str]:
    if not values:
        if field.spec.required:
            yield f"{field.label} is required"
        return
    if field.options:
        unknown = [value for value in values if value not in field.texts]
        if unknown:
            yield f"{field.label}: no such option"
        return
    if field.spec.kind != "checkbox":
        message = _typed_error(field, values[0])
        if message:
            yield f"{field.label}: {message}"


def _typed_error(field: SiteField, value: str) -> str | None:
    spec = field.spec
    if spec.kind == "email" and not _EMAIL.fullmatch(value):
        return "not an email address"
    if spec.kind == "number":
        return _number_error(value, spec.minimum, spec.maximum)
    if spec.kind == "date":
        return _date_error(field.iso(value), spec.minimum, spec.maximum)
    if spec.pattern and not re.fullmatch(spec.pattern, value):
        return f"write it as {spec.format_hint}"
    if spec.max_length and len(value) > spec.max_length:
        return f"at most {spec.max_length} characters"
    return None


def _number_error(value: str, minimum: str, maximum: str) -> str | None:
    if not _NUMBER.fullmatch(value):
        return "not a number"
    if (minimum and float(value) < float(minimum)) or (maximum and float(value) > float(maximum)):
        return f"must be from {minimum} to {maximum}"
    return None


def _date_error(value: str, minimum: str, maximum: str) -> str | None:
    try:
        day = date.fromisoformat(value).isoformat()
    except ValueError:
        return "not a date"
    if (minimum and day < minimum) or (maximum and day > maximum):
        return f"must be from {minimum} to {maximum}"
    return None
