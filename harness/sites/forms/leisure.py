"""Leisure: membership of a sports club, a wizard, and a table at a restaurant."""

from __future__ import annotations

from dataclasses import replace

from harness.sites.forms.common import (
    BIRTH_DATE,
    EMAIL,
    FIRST_NAME,
    FULL_NAME,
    LAST_NAME,
    NEWS,
    NOTE,
    PHONE,
    STREET,
    day,
    either,
    page,
)
from harness.sites.schema import FieldSpec, FormSpec
from harness.sites.values import Whole

MEMBERSHIP = FormSpec(
    kind="membership",
    domain="leisure",
    pages=(
        page("Membership|Join the club|Become a member", "One of us|Enter the club"),
        page("Your plan|Plan and sports|Your choice", "What you play|How you train"),
    ),
    fields=(
        FIRST_NAME,
        LAST_NAME,
        replace(EMAIL, rank=1),
        replace(PHONE, rank=2),
        BIRTH_DATE,
        replace(STREET, rank=2),
        FieldSpec(
            id="plan",
            kind="select",
            labels=either("Plan|Membership plan|Tariff", "Deal|Fee level"),
            options=("Basic 9", "Plus 19", "Family 39", "Gold 59"),
            required=True,
            page=2,
            superlatives=(("Basic 9", "the cheapest one"), ("Gold 59", "the most expensive one")),
        ),
        FieldSpec(
            id="sports",
            kind="checkbox",
            labels=either("Sports|Activities|Sport", "Games|Ways to move"),
            options=("Tennis", "Yoga", "Boxing", "Rowing", "Golf", "Judo"),
            page=2,
        ),
        day("begin", either("Start date|Member date|Joining date", "First visit|Entry day"), rank=2, page=2),
        replace(NEWS, rank=2, page=2),
    ),
)
TABLE = FormSpec(
    kind="table",
    domain="leisure",
    pages=(page("Book a table|Table booking|Reserve a table", "Eat with us|A seat for you"),),
    fields=(
        FULL_NAME,
        replace(PHONE, rank=0, required=True),
        day("evening", either("Date|Day|Dinner date", "Evening|Calendar day"), required=True),
        FieldSpec(
            id="people",
            kind="number",
            labels=either("Guests|People|Party size", "Heads|Number of eaters"),
            draw=Whole(1, 12),
            required=True,
            minimum="1",
            maximum="16",
        ),
        FieldSpec(
            id="area",
            kind="select",
            labels=either("Area|Seating|Table area", "Corner|Part of the room"),
            options=("Terrace", "Garden", "Window", "Bar", "Hall"),
            rank=1,
        ),
        replace(NOTE, rank=1),
        replace(NEWS, rank=1),
        replace(EMAIL, rank=2),
    ),
)
FORMS = (MEMBERSHIP, TABLE)
