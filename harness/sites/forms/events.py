"""Events: registration for a conference."""

from __future__ import annotations

from dataclasses import replace

from harness.sites.forms.common import COMPANY, EMAIL, FULL_NAME, NEWS, NOTE, PHONE, day, either, page
from harness.sites.rules import AtMost
from harness.sites.schema import FieldSpec, FormSpec, When
from harness.sites.values import Digits, Whole

EVENT = FormSpec(
    kind="event",
    domain="events",
    pages=(page("Event registration|Register now|Join the event", "Save your seat|Take part"),),
    fields=(
        FULL_NAME,
        replace(EMAIL, rank=1),
        FieldSpec(
            id="ticket",
            kind="radio",
            labels=either("Ticket|Ticket type|Pass", "Kind of entry|Admission"),
            options=("Day 20", "Weekend 45", "Student 10", "Group 80"),
            required=True,
            superlatives=(("Student 10", "the cheapest one"), ("Group 80", "the most expensive one")),
        ),
        FieldSpec(
            id="seats",
            kind="number",
            labels=either("Seats|Number of seats|Places", "Head count|Number of visitors"),
            draw=Whole(1, 8),
            prefill=("1",),
            minimum="1",
            maximum="9",
        ),
        FieldSpec(
            id="parking",
            kind="checkbox",
            labels=either("Parking|Parking space|Car park", "Room for a car|Space to park"),
        ),
        FieldSpec(
            id="plate",
            kind="text",
            labels=either("Plate|Car plate|Plate number", "Car sign|Vehicle number"),
            draw=Digits("CAR 000"),
            required=True,
            when=When(field="parking"),
            max_length=12,
        ),
        FieldSpec(
            id="workshops",
            kind="multiselect",
            labels=either("Workshops|Sessions|Talks", "Courses there|Lessons"),
            options=("Data", "Design", "Finance", "Law", "Health", "Energy"),
            rank=2,
        ),
        day("arrival", either("Arrival|Arrival date|Day of arrival", "Coming day|First day there"), rank=2),
        replace(COMPANY, rank=2),
        replace(PHONE, rank=2),
        replace(NEWS, rank=2),
        replace(NOTE, rank=2),
    ),
    rules=(AtMost("seats", "ticket", (("Student 10", 4),)),),
)
FORMS = (EVENT,)
