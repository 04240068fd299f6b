"""Travel and leisure: hotel, flight, rental car, club membership, table, conference."""

from __future__ import annotations

from dataclasses import replace

from harness.sites import vocabulary as words
from harness.sites.answers import AtMost, Before, Different
from harness.sites.forms.common import (
    BIRTH_DATE,
    COMPANY,
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
from harness.sites.schema import FieldSpec, FormSpec, When
from harness.sites.values import Digits, Pool, Whole

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
FORMS = (HOTEL, FLIGHT, RENTAL, MEMBERSHIP, TABLE, EVENT)
