"""Finance and trade: insurance quote and loan application (wizards with branches), and an order."""

from __future__ import annotations

from dataclasses import replace

from harness.sites import vocabulary as words
from harness.sites.answers import AtMost
from harness.sites.forms.common import (
    BIRTH_DATE,
    CITY,
    EMAIL,
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
from harness.sites.values import Pool, Whole

INSURANCE = FormSpec(
    kind="insurance",
    domain="finance",
    pages=(
        page("Insurance quote|Get a quote|Ask for a price", "What would it cost|Be safe"),
        page("More details|About the cover|Details", "What to protect|The thing itself"),
    ),
    fields=(
        EMAIL,
        replace(LAST_NAME, rank=1, required=False),
        FieldSpec(
            id="cover",
            kind="radio",
            labels=either("Cover|Insurance type|Kind of cover", "Protection|Kind of safety"),
            options=("Car", "Home"),
            required=True,
        ),
        day("begin", either("Start date|Cover start|First day", "Beginning|Day one"), rank=1),
        replace(BIRTH_DATE, rank=2),
        replace(PHONE, rank=2),
        FieldSpec(
            id="make",
            kind="text",
            labels=either("Car make|Make of car|Brand", "Car builder|Car sign"),
            draw=Pool(words.CAR_MAKES),
            required=True,
            page=2,
            when=When(field="cover", answer="Car"),
            max_length=30,
        ),
        FieldSpec(
            id="year",
            kind="number",
            labels=either("Year|Year built|Building year", "Model year|Age class"),
            draw=Whole(2001, 2024),
            required=True,
            page=2,
            when=When(field="cover", answer="Car"),
            minimum="1990",
            maximum="2025",
        ),
        replace(CITY, rank=0, page=2, required=True, when=When(field="cover", answer="Home")),
        FieldSpec(
            id="rooms",
            kind="number",
            labels=either("Rooms|Number of rooms|Room count", "Home size|Count of rooms"),
            draw=Whole(1, 9),
            required=True,
            page=2,
            when=When(field="cover", answer="Home"),
            minimum="1",
            maximum="20",
        ),
        FieldSpec(
            id="excess",
            kind="select",
            labels=either("Excess|Own share|Own risk", "Your part|Share of loss"),
            options=("0", "150", "300", "600"),
            is_ordered=True,
            rank=2,
            page=2,
            superlatives=(("0", "the lowest one"), ("600", "the highest one")),
        ),
        replace(NOTE, rank=2, page=2),
    ),
    has_review=True,
)
LOAN = FormSpec(
    kind="loan",
    domain="finance",
    pages=(
        page("Loan application|Ask for a loan|Your loan", "Borrow money|Money for you"),
        page("Your income|Work and income|Income", "What you earn|How you live"),
    ),
    fields=(
        FULL_NAME,
        FieldSpec(
            id="amount",
            kind="number",
            labels=either("Amount|Loan amount|Sum", "Money needed|Credit size"),
            draw=Whole(1000, 30000, 500),
            required=True,
            minimum="500",
            maximum="50000",
        ),
        FieldSpec(
            id="purpose",
            kind="select",
            labels=either("Purpose|Use|Loan purpose", "Reason|Goal"),
            options=("Car", "House", "Studies", "Travel", "Wedding", "Other"),
            rank=1,
        ),
        FieldSpec(
            id="work",
            kind="select",
            labels=either("Work|Occupation|Employment", "Daily life|Job status"),
            options=("Employee", "Student", "Retired"),
            required=True,
        ),
        replace(EMAIL, rank=2),
        replace(PHONE, rank=2),
        FieldSpec(
            id="employer",
            kind="text",
            labels=either("Employer|Firm|Company", "Place of work|Boss"),
            draw=Pool(words.COMPANIES),
            required=True,
            page=2,
            when=When(field="work", answer="Employee"),
            max_length=60,
        ),
        FieldSpec(
            id="school",
            kind="text",
            labels=either("University|School city|Study city", "Campus|Place of study"),
            draw=Pool(words.CITIES),
            required=True,
            page=2,
            when=When(field="work", answer="Student"),
            max_length=60,
        ),
        FieldSpec(
            id="income",
            kind="number",
            labels=either("Income|Monthly income|Monthly pay", "Monthly money|Money coming in"),
            draw=Whole(800, 6000, 100),
            required=True,
            page=2,
            minimum="0",
            maximum="20000",
        ),
        replace(NEWS, rank=2, page=2),
    ),
)


ORDER = FormSpec(
    kind="order",
    domain="shop",
    pages=(page("Place an order|Your order|Order form", "Buy it now|What you want"),),
    fields=(
        FieldSpec(
            id="item",
            kind="select",
            labels=either("Product|Item|Article", "Thing|Goods"),
            options=("Shirt", "Jacket", "Sweater", "Scarf", "Hat", "Gloves"),
            required=True,
        ),
        FieldSpec(
            id="quantity",
            kind="number",
            labels=either("Quantity|Pieces|Item count", "Number of items|Count"),
            draw=Whole(1, 12),
            prefill=("1",),
            minimum="1",
            maximum="20",
        ),
        FieldSpec(
            id="colour",
            kind="select",
            labels=either("Colour|Color|Main colour", "Shade|Paint"),
            options=("Red", "Blue", "Green", "Black", "White", "Grey"),
            rank=1,
        ),
        FieldSpec(
            id="delivery",
            kind="radio",
            labels=either("Delivery|Delivery method|Shipping", "Sending|Way to you"),
            options=("Post", "Pick-up"),
            required=True,
        ),
        replace(STREET, rank=0, required=True, when=When(field="delivery", answer="Post")),
        FieldSpec(
            id="gift",
            kind="checkbox",
            labels=either("Gift wrap|Gift paper|Present wrap", "Nice paper|Wrapping"),
            rank=1,
        ),
        FieldSpec(
            id="size",
            kind="radio",
            labels=either("Size|Clothes size|Fit", "Measure|Body size"),
            options=("Small", "Medium", "Large"),
            is_ordered=True,
            rank=2,
            superlatives=(("Small", "the smallest one"), ("Large", "the largest one")),
        ),
        replace(FULL_NAME, rank=2),
        replace(EMAIL, rank=2),
        replace(PHONE, rank=2),
        replace(NOTE, rank=2),
    ),
    rules=(AtMost("quantity", "item", (("Jacket", 5),)),),
)
FORMS = (INSURANCE, LOAN, ORDER)
