"""Travel: hotel booking with a review page, and flight search."""

from __future__ import annotations

from dataclasses import replace

from harness.sites import vocabulary as words
from harness.sites.forms.common import EMAIL, FULL_NAME, NEWS, NOTE, PHONE, day, either, page
from harness.sites.rules import AtMost, Before, Different
from harness.sites.schema import FieldSpec, FormSpec, When
from harness.sites.values import Pool, Whole

HOTEL = FormSpec(
    kind="hotel",
    domain="travel",
    pages=(page("Book a room|Hotel booking|Room request", "Your stay|Sleep with us"),),
    fields=(
        replace(FULL_NAME, labels=either("Guest|Guest name|Name of guest", "Visitor|Person staying")),
        day("check_in", either("Check-in|Arrival date|First night", "Start of stay|Coming day"), required=True),
        day("check_out", either("Check-out|Departure date|Last day", "End of stay|Day of leaving"), required=True),
        FieldSpec(
            id="room",
            kind="select",
            labels=either("Room|Room type|Kind of room", "Bed choice|Sort of room"),
            options=("Single 60", "Double 90", "Family 120", "Suite 200"),
            rank=1,
            superlatives=(("Single 60", "the cheapest one"), ("Suite 200", "the most expensive one")),
        ),
        FieldSpec(
            id="guests",
            kind="number",
            labels=either("Guests|Number of guests|Persons", "People count|Number of people"),
            draw=Whole(1, 6),
            rank=1,
            prefill=("1", "2"),
            minimum="1",
            maximum="9",
        ),
        FieldSpec(
            id="breakfast",
            kind="checkbox",
            labels=either("Breakfast|Breakfast included|Morning meal", "Food in the morning|Early meal"),
            rank=1,
            prefill=("on",),
        ),
        replace(EMAIL, rank=2),
        replace(PHONE, rank=2),
        FieldSpec(
            id="extras",
            kind="checkbox",
            labels=either("Extras|Services|Options", "More comfort|Added things"),
            options=("Parking", "Spa", "Crib", "Late check-out"),
            rank=2,
        ),
        replace(NOTE, rank=2),
    ),
    rules=(Before("check_in", "check_out"), AtMost("guests", "room", (("Single 60", 1), ("Double 90", 2)))),
    has_review=True,
)
FLIGHT = FormSpec(
    kind="flight",
    domain="travel",
    pages=(page("Book a flight|Find a flight|Flight request", "Fly with us|Up in the air"),),
    fields=(
        FieldSpec(
            id="origin",
            kind="text",
            labels=either("Origin|Start city|City of departure", "Leaving point|First airport"),
            draw=Pool(words.CITIES),
            required=True,
            max_length=40,
        ),
        FieldSpec(
            id="destination",
            kind="text",
            labels=either("Destination|Target city|City of arrival", "Landing place|Final airport"),
            draw=Pool(words.CITIES),
            required=True,
            max_length=40,
        ),
        day("outward", either("Departure date|Outward date|Travel date", "Outbound day|Day of leaving"), required=True),
        FieldSpec(
            id="trip",
            kind="radio",
            labels=either("Trip|Trip type|Journey", "Kind of travel|Flight mode"),
            options=("One way", "Return"),
            required=True,
        ),
        day(
            "back",
            either("Return date|Date of return|Way back date", "Homeward day|Day of coming home"),
            required=True,
            when=When(field="trip", answer="Return"),
        ),
        FieldSpec(
            id="cabin",
            kind="select",
            labels=either("Class|Cabin|Travel class", "Comfort|Part of the plane"),
            options=("Economy", "Comfort", "Business", "First"),
            is_ordered=True,
            rank=2,
            superlatives=(("Economy", "the simplest one"), ("First", "the best one")),
        ),
        FieldSpec(
            id="bags",
            kind="number",
            labels=either("Bags|Number of bags|Suitcases", "Luggage|Cases"),
            draw=Whole(1, 4),
            rank=2,
            prefill=("0",),
            minimum="0",
            maximum="5",
        ),
        replace(NEWS, rank=2),
    ),
    rules=(Different("origin", "destination"), Before("outward", "back")),
)
FORMS = (HOTEL, FLIGHT)
