"""Government: passport, visa and tax return."""

from __future__ import annotations

from dataclasses import replace

from harness.sites import vocabulary as words
from harness.sites.answers import Before
from harness.sites.forms.common import (
    COUNTRIES,
    EMAIL,
    FIRST_NAME,
    FULL_NAME,
    LAST_NAME,
    PHONE,
    box,
    choice,
    day,
    either,
    number,
    page,
    rows,
    text,
    upload,
)
from harness.sites.schema import FieldSpec, FormSpec, When
from harness.sites.values import Day, Digits, Pool

_BIRTH = {"draw": Day("1950-01-01", "2005-12-31"), "minimum": "1900-01-01", "maximum": "2010-12-31"}


def _child(name: str, row: int) -> tuple[FieldSpec, ...]:
    which = ("First", "Second")[row - 1]
    return (
        text(
            f"{name}_name",
            f"{which} child name|Name of {which.lower()} child|{which} child",
            f"{which} kid|{which} minor",
            Pool(words.FIRST_NAMES),
            required=True,
        ),
        FieldSpec(
            id=f"{name}_birth",
            kind="date",
            labels=either(
                f"{which} child born|{which} child birthday|Birth of {which.lower()} child",
                f"{which} kid born|{which} minor born",
            ),
            draw=Day("2010-01-01", "2024-12-31"),
            minimum="2008-01-01",
            maximum="2025-12-31",
        ),
    )


PASSPORT = FormSpec(
    kind="passport",
    domain="passport office",
    pages=(
        page("About you|Passport holder|Applicant", "The person|Holder"),
        page("Your passport|Passport details|Document", "The document|Booklet"),
    ),
    fields=(
        FIRST_NAME,
        LAST_NAME,
        day("born", either("Date of birth|Birth date|Born on", "Birthday|Day of birth"), required=True, **_BIRTH),
        choice(
            "birth_country",
            "Country of birth|Born in|Birth country",
            "Native country|Land of birth",
            COUNTRIES,
            required=True,
        ),
        number("height", "Height in cm|Body height|Height (cm)", "Tallness|Size in cm", 150, 200, 5, rank=1),
        choice(
            "reason",
            "Reason|Kind of request|Request",
            "Why now|Cause",
            ("First passport", "Renewal", "Lost"),
            kind="radio",
            required=True,
            page=2,
        ),
        text(
            "old_number",
            "Old passport number|Previous number|Former number",
            "Last booklet|Earlier number",
            Digits("P0000000"),
            required=True,
            when=When(field="reason", answer="Renewal"),
            page=2,
            pattern=r"P\d{7}",
            format_hint="P1234567",
        ),
        choice(
            "delivery",
            "Delivery|Way of delivery|Hand-over",
            "Getting it|Handing out",
            ("At the office", "By post", "By courier"),
            page=2,
        ),
        upload(
            "photo",
            "Passport photo|Photo file|Portrait",
            "Picture|Face image",
            ("portrait.png", "holiday.png"),
            page=2,
            required=True,
        ),
        box(
            "truth",
            "All of this is true|I declare the truth|Declaration",
            "I swear it|Word of honour",
            required=True,
            page=2,
        ),
    ),
)
VISA = FormSpec(
    kind="visa",
    domain="consulate",
    pages=(
        page("Visa request|Apply for a visa|Entry visa", "Permission to enter|Entry request"),
        page("Your journey|Stay and purpose|Travel plan", "The trip|Time abroad"),
    ),
    fields=(
        FULL_NAME,
        EMAIL,
        choice("nationality", "Nationality|Citizen of|Citizenship", "Home nation|Belongs to", COUNTRIES, required=True),
        choice(
            "destination",
            "Destination|Country to visit|Visiting",
            "Bound for|Going to",
            COUNTRIES,
            required=True,
            page=2,
        ),
        day("entry", either("Entry date|Date of entry|Arrival", "Coming in|Entering on"), required=True, page=2),
        day("leave", either("Exit date|Date of exit|Departure", "Going out|Leaving on"), required=True, page=2),
        choice(
            "purpose",
            "Purpose|Reason for travel|Purpose of stay",
            "Why you go|Aim of trip",
            ("Tourism", "Business", "Family", "Study"),
            kind="radio",
            required=True,
            page=2,
        ),
        text(
            "host",
            "Inviting company|Host company|Business partner",
            "Firm abroad|Partner firm",
            Pool(words.COMPANIES),
            required=True,
            when=When(field="purpose", answer="Business"),
            page=2,
        ),
        upload(
            "scan",
            "Passport scan|Scan of passport|Scanned page",
            "Copied page|Document copy",
            ("passport_page.png", "ticket.pdf", "insurance.pdf"),
            required=True,
            page=2,
        ),
    ),
    rules=(Before("entry", "leave"),),
    has_review=True,
)
TAX = FormSpec(
    kind="tax_return",
    domain="tax office",
    pages=(page("Tax return|Income tax|Yearly return", "Tax papers|What you owe"),),
    fields=(
        text(
            "tax_id",
            "Tax number|Tax id|Taxpayer number",
            "Revenue number|Payer code",
            Digits("00-000-000"),
            required=True,
            pattern=r"\d\d-\d{3}-\d{3}",
            format_hint="12-345-678",
        ),
        FULL_NAME,
        number(
            "income", "Income|Yearly income|Gross income", "Earnings|Money earned", 10_000, 90_000, 500, required=True
        ),
        choice(
            "status",
            "Filing status|Tax status|Marital status",
            "Household|Kind of household",
            ("Single", "Married", "Widowed", "Divorced"),
            required=True,
        ),
        *rows(
            "child",
            (
                either("Add a child|Add one child|A child", "Enter a kid|One minor"),
                either("Add second child|Another child|One more child", "Enter next kid|Further minor"),
            ),
            _child,
        ),
        choice(
            "deductions",
            "Deductions|Costs to deduct|Deductible costs",
            "Taken off|Less to pay",
            ("Commuting", "Home office", "Donations", "Training"),
            kind="checkbox",
            rank=1,
        ),
        choice("refund", "Refund|Refund by|Paid back by", "Money back|Return by", ("Transfer", "Cheque"), kind="radio"),
        upload(
            "statement",
            "Wage statement|Salary statement|Pay slip",
            "Proof of wage|Wage paper",
            ("wages_2025.pdf", "wages_2024.pdf"),
        ),
        replace(PHONE, rank=2),
    ),
)
FORMS = (PASSPORT, VISA, TAX)
