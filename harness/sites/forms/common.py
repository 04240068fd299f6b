"""Fields and parts that many forms share. A form takes them as they are, or with `dataclasses.replace`.

Forms of the rich world also have rows that are added, dependent lists, files, sliders, and a step to sign in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from harness.sites import vocabulary as words
from harness.sites.schema import Answers, FieldSpec, FormSpec, PageSpec, Persona, Size, When, Wording
from harness.sites.values import Address, Day, Digits, OfPersona, Pool, Whole

FIRST_DAY, LAST_DAY = "2025-01-01", "2027-12-31"


def either(train: str, held_out: str) -> Wording:
    """Write a Wording as two lists with `|` between the wordings."""
    return Wording(train=tuple(train.split("|")), held_out=tuple(held_out.split("|")))


def page(train: str, held_out: str) -> PageSpec:
    """Write a page by its headings."""
    return PageSpec(titles=either(train, held_out))


def day(spec_id: str, labels: Wording, **settings: object) -> FieldSpec:
    """A date between the first and the last day that all small sites know."""
    settings = {"draw": Day(FIRST_DAY, LAST_DAY), "minimum": FIRST_DAY, "maximum": LAST_DAY, **settings}
    return FieldSpec(id=spec_id, kind="date", labels=labels, **settings)  # type: ignore[arg-type]


FIRST_NAME = FieldSpec(
    id="first_name",
    kind="text",
    labels=either("First name|Given name|Forename", "Personal name|Calling name"),
    draw=OfPersona("first"),
    required=True,
    max_length=40,
)
LAST_NAME = FieldSpec(
    id="last_name",
    kind="text",
    labels=either("Last name|Surname|Family name", "Second name|Name of family"),
    draw=OfPersona("last"),
    required=True,
    max_length=40,
)
FULL_NAME = FieldSpec(
    id="full_name",
    kind="text",
    labels=either("Full name|Name|Your name", "Complete name|Name in full"),
    draw=OfPersona("full"),
    required=True,
    max_length=60,
)
EMAIL = FieldSpec(
    id="email",
    kind="email",
    labels=either("Email|Email address|Mail address", "Mailbox|Electronic mail"),
    draw=OfPersona("email"),
    required=True,
    max_length=80,
)
PHONE = FieldSpec(
    id="phone",
    kind="tel",
    labels=either("Phone|Phone number|Telephone", "Mobile|Contact number"),
    draw=Digits("555-0000"),
    rank=1,
    pattern=r"\d{3}-\d{4}",
    format_hint="555-0123",
)
CITY = FieldSpec(
    id="city",
    kind="text",
    labels=either("City|Town|Home city", "Place of living|Place name"),
    draw=Pool(words.CITIES),
    rank=1,
    max_length=40,
)
STREET = FieldSpec(
    id="street",
    kind="text",
    labels=either("Street|Address|Street address", "Street line|House and street"),
    draw=Address(),
    rank=1,
    max_length=60,
)
COMPANY = FieldSpec(
    id="company",
    kind="text",
    labels=either("Company|Firm|Organisation", "Workplace|Business name"),
    draw=Pool(words.COMPANIES),
    rank=1,
    max_length=60,
)
MESSAGE = FieldSpec(
    id="message",
    kind="textarea",
    labels=either("Message|Your message|Question", "Inquiry|Free text"),
    draw=Pool(words.PHRASES, words.PHRASES_FULL),
    max_length=400,
)
NOTE = FieldSpec(
    id="note",
    kind="textarea",
    labels=either("Note|Comment|Remarks", "Extra words|Added information"),
    draw=Pool(words.PHRASES, words.PHRASES_FULL),
    rank=1,
    max_length=400,
)
BIRTH_DATE = FieldSpec(
    id="birth_date",
    kind="date",
    labels=either("Date of birth|Birth date|Birthday", "Day of birth|Birth day"),
    draw=Day("1950-01-01", "2005-12-31"),
    rank=2,
    minimum="1900-01-01",
    maximum="2010-12-31",
)
SOURCE = FieldSpec(
    id="source",
    kind="select",
    labels=either("Source|Referral|Found us by", "Referred by|Way to us"),
    options=("Friend", "Search", "Radio", "Poster", "Press", "Fair"),
    rank=2,
)
NEWS = FieldSpec(
    id="news",
    kind="checkbox",
    labels=either("News by email|Newsletter|Monthly news", "Regular news|Club letter"),
    rank=1,
    prefill=("on",),
)


COUNTRIES = (
    "Austria",
    "Belgium",
    "Croatia",
    "Denmark",
    "Estonia",
    "Finland",
    "France",
    "Germany",
    "Greece",
    "Hungary",
    "Ireland",
    "Italy",
    "Latvia",
    "Norway",
    "Poland",
    "Portugal",
    "Spain",
    "Sweden",
)


def text(spec_id: str, train: str, held_out: str, draw: Any, **settings: Any) -> FieldSpec:
    """A field that is typed into."""
    settings = {"kind": "text", "max_length": 60, **settings}
    return FieldSpec(id=spec_id, labels=either(train, held_out), draw=draw, **settings)


def choice(spec_id: str, train: str, held_out: str, options: Sequence[str], **settings: Any) -> FieldSpec:
    """A list, unless the settings name another kind."""
    settings = {"kind": "select", **settings}
    return FieldSpec(id=spec_id, labels=either(train, held_out), options=tuple(options), **settings)


def number(spec_id: str, train: str, held_out: str, low: int, high: int, step: int = 1, **settings: Any) -> FieldSpec:
    """A number between two bounds, in steps; it may be shown as a slider."""
    settings = {"minimum": str(low), "maximum": str(high), "draw": Whole(low, high, step), **settings}
    return FieldSpec(id=spec_id, kind="number", labels=either(train, held_out), **settings)


def box(spec_id: str, train: str, held_out: str, **settings: Any) -> FieldSpec:
    """A box on its own."""
    return FieldSpec(id=spec_id, kind="checkbox", labels=either(train, held_out), **settings)


def upload(spec_id: str, train: str, held_out: str, names: Sequence[str], **settings: Any) -> FieldSpec:
    """A file to hand over, of those with these names; `harness.sites.values` makes a file from its name."""
    settings = {"rank": 2, **settings}
    return FieldSpec(id=spec_id, kind="file", labels=either(train, held_out), options=tuple(names), **settings)


def dependent(spec_id: str, labels: Wording, on: str, options: Mapping[str, Sequence[str]]) -> tuple[FieldSpec, ...]:
    """A list whose options follow from the answer to `on`: one list an answer, of which one is shown."""
    return tuple(
        FieldSpec(
            id=f"{spec_id}_{number}",
            kind="select",
            labels=labels,
            options=tuple(texts),
            required=True,
            when=When(field=on, answer=answer),
        )
        for number, (answer, texts) in enumerate(options.items(), start=1)
    )


def rows(
    spec_id: str, captions: Sequence[Wording], fields: Callable[[str, int], Sequence[FieldSpec]]
) -> tuple[FieldSpec, ...]:
    """Rows that are added one by one, each by a button.

    Args:
        spec_id: Start of the ids.
        captions: Wordings of the button of each row.
        fields: The fields of a row, from the start of their ids and the number of the row.
    """
    found: list[FieldSpec] = []
    before: str | None = None
    for number, labels in enumerate(captions, start=1):
        opener = f"{spec_id}_{number}"
        when = When(field=before) if before else None
        found.append(FieldSpec(id=opener, kind="button", labels=labels, rank=2, when=when))
        found += [replace(item, rank=2, when=When(field=opener)) for item in fields(opener, number)]
        before = opener
    return tuple(found)


def password_of(user: str) -> str:
    """The password of an account; every user name has one, so that each task can have its own."""
    number = int.from_bytes(hashlib.blake2b(user.lower().encode(), digest_size=4).digest(), "big")
    words = ("river", "maple", "stone", "cloud", "amber", "ocean", "field", "north")
    return f"{words[number % len(words)]}-{number // len(words) % 10_000:04d}"


@dataclass(frozen=True, slots=True)
class PasswordDraw:
    """The password that belongs to the person's email address."""

    def __call__(self, rng: Random, persona: Persona, size: Size) -> str:
        """Nothing is drawn."""
        return password_of(persona.email)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """User name and password must belong to each other."""

    user: str = "login_user"
    password: str = "login_password"

    @property
    def fields(self) -> tuple[str, ...]:
        """Ids of the fields that the rule reads."""
        return (self.user, self.password)

    def error(self, answers: Answers, labels: Mapping[str, str]) -> str | None:
        """One message, whichever of the two is wrong."""
        user, password = answers[self.user], answers[self.password]
        if user and password and password[0] != password_of(user[0]):
            return "User name and password do not belong together"
        return None


LOGIN_PAGE = page("Sign in|Log in first|Your account", "Who are you|Account check")
LOGIN_FIELDS = (
    text(
        "login_user",
        "User name|Login name|Account name",
        "Sign-in name|Known as",
        OfPersona("email"),
        required=True,
        max_length=80,
    ),
    text(
        "login_password",
        "Password|Pass word|Account password",
        "Secret word|Login secret",
        PasswordDraw(),
        required=True,
        widget="password",
    ),
)


def with_login(form: FormSpec) -> FormSpec:
    """The same form behind a page on which one signs in."""
    later = tuple(replace(item, page=item.page + 1) for item in form.fields)
    return replace(
        form, pages=(LOGIN_PAGE, *form.pages), fields=(*LOGIN_FIELDS, *later), rules=(*form.rules, SignedIn())
    )
