"""Education: course enrolment."""

from __future__ import annotations

from dataclasses import replace

from harness.sites.forms.common import BIRTH_DATE, CITY, EMAIL, FIRST_NAME, LAST_NAME, NOTE, day, either, page
from harness.sites.schema import FieldSpec, FormSpec

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
FORMS = (COURSE,)
