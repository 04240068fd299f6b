"""Fields that many forms share. A form takes them as they are, or with `dataclasses.replace`."""

from __future__ import annotations

from harness.sites import vocabulary as words
from harness.sites.schema import FieldSpec, PageSpec, Wording
from harness.sites.values import Address, Day, Digits, OfPersona, Pool

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
