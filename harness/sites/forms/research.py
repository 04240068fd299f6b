"""Research: a customer survey."""

from __future__ import annotations

from dataclasses import replace

from harness.sites.forms.common import CITY, EMAIL, NEWS, NOTE, day, either, page
from harness.sites.schema import FieldSpec, FormSpec, When
from harness.sites.values import Whole

SURVEY = FormSpec(
    kind="survey",
    domain="research",
    pages=(page("Customer survey|Your opinion|Short survey", "Tell us|Five minutes"),),
    fields=(
        FieldSpec(
            id="age",
            kind="number",
            labels=either("Age|Your age|Age in years", "Years|Years of life"),
            draw=Whole(18, 80),
            required=True,
            minimum="18",
            maximum="110",
        ),
        FieldSpec(
            id="rating",
            kind="radio",
            labels=either("Rating|Satisfaction|Grade", "Marks|Verdict"),
            options=("Bad", "Fair", "Good"),
            is_ordered=True,
            required=True,
            superlatives=(("Bad", "the worst one"), ("Good", "the best one")),
        ),
        replace(NOTE, rank=0),
        replace(CITY, rank=1),
        FieldSpec(
            id="channel",
            kind="select",
            labels=either("Shop|Branch|Store", "Place of buying|House"),
            options=("Online", "Market", "Outlet", "Airport", "Station"),
            rank=1,
        ),
        FieldSpec(
            id="prize",
            kind="checkbox",
            labels=either("Prize draw|Prize|Lottery", "Lucky draw|Raffle"),
            rank=1,
        ),
        replace(EMAIL, rank=1, when=When(field="prize")),
        day("bought", either("Date of purchase|Purchase date|Buying date", "Day of sale|Day of payment"), rank=2),
        FieldSpec(
            id="liked",
            kind="multiselect",
            labels=either("Good points|Best parts|Strengths", "Strong sides|Pleasant parts"),
            options=("Price", "Quality", "Service", "Choice", "Speed"),
            rank=2,
        ),
        replace(NEWS, rank=2),
    ),
)
FORMS = (SURVEY,)
