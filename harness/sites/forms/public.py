"""Public services: course enrolment, appointment with a doctor, survey."""

from __future__ import annotations

from dataclasses import replace

from harness.sites.forms.common import (
    BIRTH_DATE,
    CITY,
    EMAIL,
    FIRST_NAME,
    FULL_NAME,
    LAST_NAME,
    NEWS,
    NOTE,
    PHONE,
    day,
    either,
    page,
)
from harness.sites.schema import FieldSpec, FormSpec, When
from harness.sites.values import Digits, Whole

COURSE = FormSpec(
    kind="course",
    domain="education",
    pages=(page("Course enrolment|Enrol now|Join a course", "Learn with us|Take a class"),),
    fields=(
        replace(FIRST_NAME, labels=either("Student|Student name|Learner", "Pupil|Person learning")),
        FieldSpec(
            id="subject",
            kind="select",
            labels=either("Course|Class|Subject", "Field|Teaching matter"),
            options=("History", "Physics", "Drawing", "Cooking", "Piano", "Spanish", "Chess", "Poetry"),
            required=True,
        ),
        FieldSpec(
            id="languages",
            kind="multiselect",
            labels=either("Languages|Spoken languages|Languages spoken", "Tongues|Own languages"),
            options=("English", "French", "German", "Italian", "Polish", "Dutch"),
        ),
        FieldSpec(
            id="term",
            kind="radio",
            labels=either("Term|Semester|Season", "Part of the year|School period"),
            options=("Spring", "Summer", "Autumn"),
            is_ordered=True,
            required=True,
        ),
        day("begin", either("Start date|First lesson|Start day", "Opening day|First class day"), rank=1),
        replace(LAST_NAME, rank=2, required=False),
        replace(EMAIL, rank=2),
        BIRTH_DATE,
        replace(CITY, rank=2),
        FieldSpec(
            id="certificate",
            kind="checkbox",
            labels=either("Certificate|Course certificate|Final certificate", "Paper at the end|Proof"),
            rank=1,
            prefill=("on",),
        ),
        replace(NOTE, rank=2),
    ),
)


APPOINTMENT = FormSpec(
    kind="appointment",
    domain="health",
    pages=(page("Book an appointment|Doctor visit|See a doctor", "Make a date with us|Your visit"),),
    fields=(
        replace(FULL_NAME, labels=either("Patient|Patient name|Name of patient", "Person to treat|Ill person")),
        replace(PHONE, rank=0, required=True),
        FieldSpec(
            id="department",
            kind="select",
            labels=either("Department|Clinic|Section", "Ward|Kind of doctor"),
            options=("Dental", "Eyes", "Heart", "Skin", "Bones", "Children"),
            required=True,
        ),
        day("visit", either("Date|Visit date|Day", "Calendar day|Coming day"), required=True),
        FieldSpec(
            id="hour",
            kind="select",
            labels=either("Time|Hour|Visit time", "Clock time|Time of day"),
            options=("08:00", "09:30", "11:00", "13:30", "15:00", "16:30"),
            is_ordered=True,
            rank=1,
        ),
        FieldSpec(
            id="insured",
            kind="checkbox",
            labels=either("Insured|Has insurance|Insurance", "Covered costs|Cost cover"),
            rank=1,
        ),
        FieldSpec(
            id="policy",
            kind="text",
            labels=either("Policy number|Insurance number|Policy", "Cover number|Insurance card"),
            draw=Digits("PN 0000"),
            required=True,
            rank=1,
            when=When(field="insured"),
            max_length=12,
        ),
        BIRTH_DATE,
        replace(EMAIL, rank=2, required=False),
        replace(NOTE, rank=2),
    ),
)


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
FORMS = (COURSE, APPOINTMENT, SURVEY)
