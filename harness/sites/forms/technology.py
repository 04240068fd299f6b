"""Technology: support ticket."""

from __future__ import annotations

from dataclasses import replace

from harness.sites.forms.common import EMAIL, FULL_NAME, MESSAGE, PHONE, day, either, page
from harness.sites.schema import FieldSpec, FormSpec, When
from harness.sites.values import Digits

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
FORMS = (SUPPORT,)
