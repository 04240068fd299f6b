"""Transport: car rental."""

from __future__ import annotations

from dataclasses import replace

from harness.sites import vocabulary as words
from harness.sites.forms.common import EMAIL, FULL_NAME, PHONE, day, either, page
from harness.sites.rules import Before
from harness.sites.schema import FieldSpec, FormSpec, When
from harness.sites.values import Pool, Whole

RENTAL = FormSpec(
    kind="rental",
    domain="transport",
    pages=(page("Rent a car|Car rental|Reserve a car", "Wheels for you|Drive away"),),
    fields=(
        FieldSpec(
            id="place",
            kind="text",
            labels=either("Pick-up city|Pick-up place|Collection city", "Starting place|Handover city"),
            draw=Pool(words.CITIES),
            required=True,
            max_length=40,
        ),
        day(
            "pick_up",
            either("Pick-up date|Rental start|Collection date", "First rental day|Handover day"),
            required=True,
        ),
        day(
            "bring_back", either("Return date|Rental end|Date of return", "Last rental day|Drop-off day"), required=True
        ),
        FieldSpec(
            id="car",
            kind="select",
            labels=either("Car|Car class|Vehicle", "Kind of car|Wheels"),
            options=("Small 25", "Middle 40", "Large 60", "Van 80"),
            rank=1,
            superlatives=(("Small 25", "the cheapest one"), ("Van 80", "the most expensive one")),
        ),
        FieldSpec(
            id="second",
            kind="checkbox",
            labels=either("Extra driver|Second driver|Another driver", "One more driver|Co-driver"),
            rank=1,
        ),
        FieldSpec(
            id="driver",
            kind="text",
            labels=either("Driver name|Name of driver|Driver", "Person at the wheel|Co-driver name"),
            draw=Pool(words.FIRST_NAMES),
            required=True,
            rank=1,
            when=When(field="second"),
            max_length=60,
        ),
        replace(FULL_NAME, rank=2),
        replace(EMAIL, rank=2),
        replace(PHONE, rank=2),
        FieldSpec(
            id="age",
            kind="number",
            labels=either("Age|Your age|Age of renter", "Years|Years of life"),
            draw=Whole(21, 75),
            rank=2,
            required=True,
            minimum="21",
            maximum="90",
        ),
        FieldSpec(
            id="equipment",
            kind="multiselect",
            labels=either("Equipment|Add-ons|Extras", "Added things|More gear"),
            options=("Child seat", "Ski rack", "Snow chains", "Navigation"),
            rank=2,
        ),
    ),
    rules=(Before("pick_up", "bring_back"),),
)
FORMS = (RENTAL,)
