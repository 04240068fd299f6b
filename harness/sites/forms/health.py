"""Health: appointment with a doctor."""

from __future__ import annotations

from dataclasses import replace

from harness.sites.forms.common import BIRTH_DATE, EMAIL, FULL_NAME, NOTE, PHONE, day, either, page
from harness.sites.schema import FieldSpec, FormSpec, When
from harness.sites.values import Digits

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
FORMS = (APPOINTMENT,)
