"""Business: contact form, newsletter, job application, technical support."""

from __future__ import annotations

from dataclasses import replace

from harness.sites import vocabulary as words
from harness.sites.answers import Before
from harness.sites.forms.common import (
    BIRTH_DATE,
    CITY,
    COMPANY,
    EMAIL,
    FIRST_NAME,
    FULL_NAME,
    LAST_NAME,
    MESSAGE,
    NOTE,
    PHONE,
    SOURCE,
    day,
    either,
    page,
)
from harness.sites.schema import FieldSpec, FormSpec, When
from harness.sites.values import Digits, Pool, Whole

CONTACT = FormSpec(
    kind="contact",
    domain="business",
    pages=(page("Contact us|Get in touch|Write to us", "Reach us|Send us a line"),),
    fields=(
        FULL_NAME,
        EMAIL,
        FieldSpec(
            id="topic",
            kind="select",
            labels=either("Topic|Subject|Theme", "Matter|Area of concern"),
            options=("Sales", "Support", "Billing", "Press", "Jobs", "Other"),
            required=True,
        ),
        replace(MESSAGE, required=True),
        PHONE,
        FieldSpec(
            id="copy",
            kind="checkbox",
            labels=either("Email copy|Copy by email|Copy to me", "Own copy|Copy wanted"),
            rank=1,
            prefill=("on",),
        ),
        replace(COMPANY, rank=2),
        SOURCE,
    ),
)
NEWSLETTER = FormSpec(
    kind="newsletter",
    domain="business",
    pages=(page("Newsletter|Join our list|Stay informed", "Never miss a story|Our letter"),),
    fields=(
        EMAIL,
        FIRST_NAME,
        FieldSpec(
            id="interests",
            kind="checkbox",
            labels=either("Interests|Topics|Subjects", "Favourite fields|Reading matter"),
            options=("Art", "Music", "Sport", "Science", "Travel", "Food"),
            required=True,
        ),
        FieldSpec(
            id="frequency",
            kind="radio",
            labels=either("Frequency|Mail frequency|Delivery rhythm", "Pace|Sending interval"),
            options=("Daily", "Weekly", "Monthly"),
            is_ordered=True,
            prefill=("Weekly", "Monthly"),
        ),
        replace(LAST_NAME, rank=2, required=False),
        SOURCE,
    ),
)


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


SUPPORT = FormSpec(
    kind="support",
    domain="technology",
    pages=(page("Support ticket|Get help|Report a problem", "Something is wrong|We repair"),),
    fields=(
        EMAIL,
        FieldSpec(
            id="product",
            kind="select",
            labels=either("Product|Device|Item", "Thing|Owned item"),
            options=("Phone", "Laptop", "Printer", "Camera", "Router", "Tablet"),
            required=True,
        ),
        FieldSpec(
            id="severity",
            kind="radio",
            labels=either("Severity|Urgency|Priority", "Weight|Level of harm"),
            options=("Low", "Medium", "High"),
            is_ordered=True,
            required=True,
            superlatives=(("Low", "the least urgent one"), ("High", "the most urgent one")),
        ),
        replace(MESSAGE, required=True, labels=either("Problem|Description|Issue", "Fault|Trouble")),
        FieldSpec(
            id="ordered",
            kind="checkbox",
            labels=either("Shop customer|Bought here|Own purchase", "Shop item|Local purchase"),
            rank=1,
        ),
        FieldSpec(
            id="order",
            kind="text",
            labels=either("Order number|Order|Order code", "Bill number|Receipt"),
            draw=Digits("B-0000"),
            required=True,
            rank=1,
            pattern=r"B-\d{4}",
            format_hint="B-1234",
            when=When(field="ordered"),
        ),
        replace(FULL_NAME, rank=2),
        replace(PHONE, rank=2),
        day("since", either("Start date|First seen|Problem date", "Day of fault|Beginning"), rank=2),
        FieldSpec(
            id="tried",
            kind="checkbox",
            labels=either("Steps taken|Tried steps|Attempts", "Own attempts|Work so far"),
            options=("Restart", "Update", "New cable", "Reset"),
            rank=2,
        ),
    ),
)
FORMS = (CONTACT, NEWSLETTER, JOB, SUPPORT)
