"""Business: contact form and newsletter signup."""

from __future__ import annotations

from dataclasses import replace

from harness.sites.forms.common import (
    COMPANY,
    EMAIL,
    FIRST_NAME,
    FULL_NAME,
    LAST_NAME,
    MESSAGE,
    PHONE,
    SOURCE,
    either,
    page,
)
from harness.sites.schema import FieldSpec, FormSpec

CONTACT = FormSpec(
    kind="contact",
    domain="business",
    pages=(page("Contact us|Get in touch|Write to us", "Reach us|Send us a line"),),
    fields=(
        FULL_NAME,
        EMAIL,
        FieldSpec(
            id="topic",
            kind="select",
            labels=either("Topic|Subject|Theme", "Matter|Area of concern"),
            options=("Sales", "Support", "Billing", "Press", "Jobs", "Other"),
            required=True,
        ),
        replace(MESSAGE, required=True),
        PHONE,
        FieldSpec(
            id="copy",
            kind="checkbox",
            labels=either("Email copy|Copy by email|Copy to me", "Own copy|Copy wanted"),
            rank=1,
            prefill=("on",),
        ),
        replace(COMPANY, rank=2),
        SOURCE,
    ),
)
NEWSLETTER = FormSpec(
    kind="newsletter",
    domain="business",
    pages=(page("Newsletter|Join our list|Stay informed", "Never miss a story|Our letter"),),
    fields=(
        EMAIL,
        FIRST_NAME,
        FieldSpec(
            id="interests",
            kind="checkbox",
            labels=either("Interests|Topics|Subjects", "Favourite fields|Reading matter"),
            options=("Art", "Music", "Sport", "Science", "Travel", "Food"),
            required=True,
        ),
        FieldSpec(
            id="frequency",
            kind="radio",
            labels=either("Frequency|Mail frequency|Delivery rhythm", "Pace|Sending interval"),
            options=("Daily", "Weekly", "Monthly"),
            is_ordered=True,
            prefill=("Weekly", "Monthly"),
        ),
        replace(LAST_NAME, rank=2, required=False),
        SOURCE,
    ),
)
FORMS = (CONTACT, NEWSLETTER)
