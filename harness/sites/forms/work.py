"""Work: job application, a wizard with a review page."""

from __future__ import annotations

from dataclasses import replace

from harness.sites import vocabulary as words
from harness.sites.forms.common import BIRTH_DATE, CITY, EMAIL, FIRST_NAME, LAST_NAME, NOTE, PHONE, day, either, page
from harness.sites.rules import Before
from harness.sites.schema import FieldSpec, FormSpec, When
from harness.sites.values import Pool, Whole

JOB = FormSpec(
    kind="job",
    domain="work",
    pages=(
        page("Job application|Apply for a job|Your details", "Work with us|About you"),
        page("The position|Your application|Job details", "The role|What you want to do"),
    ),
    fields=(
        FIRST_NAME,
        replace(LAST_NAME, rank=1),
        EMAIL,
        replace(PHONE, rank=2),
        replace(CITY, rank=2),
        BIRTH_DATE,
        FieldSpec(
            id="position",
            kind="select",
            labels=either("Position|Job|Role", "Post|Line of work"),
            options=("Cook", "Driver", "Nurse", "Teacher", "Designer", "Engineer", "Clerk", "Manager"),
            required=True,
            page=2,
        ),
        day("start", either("Start date|First day|Earliest start", "Day to begin|Opening date"), page=2),
        FieldSpec(
            id="salary",
            kind="number",
            labels=either("Salary|Wanted salary|Yearly pay", "Pay goal|Desired income"),
            draw=Whole(20000, 90000, 1000),
            rank=1,
            page=2,
            minimum="10000",
            maximum="200000",
        ),
        FieldSpec(
            id="employed",
            kind="checkbox",
            labels=either("Employed now|In a job now|Working now", "Current work|Work at present"),
            rank=2,
            page=2,
        ),
        FieldSpec(
            id="employer",
            kind="text",
            labels=either("Employer|Current firm|Current company", "Present boss|Place of work"),
            draw=Pool(words.COMPANIES),
            rank=2,
            page=2,
            required=True,
            when=When(field="employed"),
        ),
        day("last_day", either("Last work day|End of notice|Notice end", "Exit day|Day of leaving"), rank=2, page=2),
        replace(NOTE, rank=2, page=2),
    ),
    rules=(Before("last_day", "start"),),
    has_review=True,
)
FORMS = (JOB,)
