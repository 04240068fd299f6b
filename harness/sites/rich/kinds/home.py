"""At home: renting a flat, power supply, a phone plan, a parcel, and the vet."""

from __future__ import annotations

from dataclasses import replace

from harness.sites import vocabulary as words
from harness.sites.forms.common import (
    EMAIL,
    FULL_NAME,
    NOTE,
    PHONE,
    STREET,
    box,
    choice,
    day,
    dependent,
    either,
    number,
    page,
    rows,
    text,
    upload,
)
from harness.sites.schema import FieldSpec, FormSpec, When
from harness.sites.values import Digits, OfPersona, Pool


def _tenant(name: str, row: int) -> tuple[FieldSpec, ...]:
    which = ("Second", "Third")[row - 1]
    return (
        text(
            f"{name}_name",
            f"{which} tenant name|Name of {which.lower()} tenant|{which} tenant",
            f"{which} dweller|{which} resident",
            Pool(words.FIRST_NAMES),
            required=True,
        ),
        number(
            f"{name}_age",
            f"{which} tenant age|Age of {which.lower()} tenant|{which} age",
            f"{which} dweller years|{which} resident years",
            18,
            78,
            2,
        ),
    )


TENANCY = FormSpec(
    kind="tenancy",
    domain="housing",
    pages=(page("Rent a flat|Flat application|Tenancy request", "A home for you|Moving in"),),
    fields=(
        FULL_NAME,
        EMAIL,
        choice(
            "quarter",
            "Quarter|Part of town|District",
            "Area|Neighbourhood",
            ("Harbour", "Old town", "Park side", "Station", "University", "West end"),
            required=True,
        ),
        number("rent", "Highest rent|Rent at most|Rent limit", "Top rent|Can pay", 400, 1600, 50),
        day("move_in", either("Move-in date|Moving in|Start of tenancy", "First day there|Key day"), required=True),
        choice(
            "pets", "Pets|Pets in the flat|Animals", "Beasts|Furry friends", ("No", "Yes"), kind="radio", required=True
        ),
        text(
            "which_pets",
            "Which pets|Kind of pets|Pets you have",
            "What beasts|Which friends",
            Pool(("a cat", "a small dog", "two rabbits", "a parrot")),
            required=True,
            when=When(field="pets", answer="Yes"),
        ),
        *rows(
            "tenant",
            (
                either("Add second tenant|Add a tenant|One more tenant", "Enter a dweller|Resident two"),
                either("Add third tenant|Another tenant|Further tenant", "Next dweller|Resident three"),
            ),
            _tenant,
        ),
        upload(
            "income_proof",
            "Proof of income|Income proof|Salary proof",
            "Wage proof|Pay evidence",
            ("salary.pdf", "contract.pdf"),
        ),
        replace(NOTE, rank=2),
    ),
)
POWER = FormSpec(
    kind="power_supply",
    domain="energy",
    pages=(page("Power contract|Electricity contract|Change supplier", "Current at home|Light and heat"),),
    fields=(
        FULL_NAME,
        STREET,
        text(
            "meter",
            "Meter number|Number of the meter|Meter id",
            "Counter number|Counter code",
            Digits("M-000000"),
            required=True,
            pattern=r"M-\d{6}",
            format_hint="M-123456",
        ),
        number("usage", "Usage a year|Yearly usage (kWh)|Consumption", "Power needed|Yearly need", 1000, 6000, 250),
        choice(
            "tariff",
            "Tariff|Power tariff|Rate",
            "Price plan|Kind of price",
            ("Basic", "Green", "Night", "Solar"),
            required=True,
        ),
        day("start", either("Start date|Supply from|First day", "Begins on|Opening day"), required=True),
        choice(
            "payment",
            "Payment|Way to pay|Paying by",
            "Settled by|Money by",
            ("Invoice", "Direct debit"),
            kind="radio",
            required=True,
        ),
        text(
            "iban",
            "IBAN|Bank account|Account number",
            "Bank code|Money account",
            Digits("DE00 0000 0000 0000"),
            required=True,
            when=When(field="payment", answer="Direct debit"),
        ),
        replace(PHONE, rank=2),
    ),
)
PHONE_PLAN = FormSpec(
    kind="phone_plan",
    domain="telecom",
    pages=(
        page("Choose a plan|Mobile plan|Phone contract", "Talk and surf|Your SIM"),
        page("Your number|Number and card|SIM details", "Reach you|The card"),
    ),
    fields=(
        choice(
            "plan",
            "Plan|Mobile tariff|Contract",
            "Bundle|Package",
            ("Small 5", "Medium 10", "Large 20", "Max 30"),
            required=True,
            superlatives=(("Small 5", "the cheapest one"), ("Max 30", "the most expensive one")),
        ),
        number("data", "Extra data (GB)|More data|Data pack", "Surf volume|Added volume", 0, 40, 2),
        FULL_NAME,
        EMAIL,
        choice(
            "card",
            "SIM card|Kind of card|SIM type",
            "Chip|Chip kind",
            ("eSIM", "Plastic card"),
            kind="radio",
            required=True,
            page=2,
        ),
        replace(STREET, required=True, rank=0, when=When(field="card", answer="Plastic card"), page=2),
        box("keep", "Keep my number|Bring your number|Number transfer", "Old number stays|Take it along", page=2),
        text(
            "old_phone",
            "Present number|Number to keep|Current number",
            "Number today|Line today",
            Digits("555-0000"),
            required=True,
            when=When(field="keep"),
            page=2,
            pattern=r"\d{3}-\d{4}",
            format_hint="555-0123",
        ),
    ),
)
PARCEL = FormSpec(
    kind="parcel",
    domain="delivery",
    pages=(page("Send a parcel|Parcel service|Parcel order", "On its way|Box to go"),),
    fields=(
        text("sender", "Sender|Sent by|Name of sender", "From whom|Posting person", OfPersona("full"), required=True),
        text(
            "receiver",
            "Receiver|Sent to|Name of receiver",
            "To whom|Getting person",
            Pool(words.FIRST_NAMES),
            required=True,
        ),
        choice(
            "country", "Country|Target country|Deliver to", "Nation|Land", ("France", "Italy", "Norway"), required=True
        ),
        *dependent(
            "city",
            either("City|Target city|Delivery city", "Place|Town there"),
            "country",
            {
                "France": ("Paris", "Lyon", "Nice"),
                "Italy": ("Rome", "Milan", "Turin"),
                "Norway": ("Oslo", "Bergen", "Tromso"),
            },
        ),
        number("weight", "Weight (kg)|Parcel weight|Kilograms", "Heaviness|How heavy", 1, 31),
        day("pickup", either("Pick-up date|Collected on|Day of pick-up", "Fetched on|Taken on")),
        box("insured", "Insurance|Insured|With insurance", "Cover it|Safe sending"),
        number(
            "worth",
            "Value of goods|Worth|Insured value",
            "Price of it|What it costs",
            50,
            1000,
            50,
            required=True,
            when=When(field="insured"),
        ),
    ),
)
VET = FormSpec(
    kind="vet",
    domain="animal clinic",
    pages=(page("Visit the vet|Vet appointment|Animal clinic", "Help for pets|Paws and claws"),),
    fields=(
        text("owner", "Owner|Name of owner|Pet owner", "Belongs to|Keeper", OfPersona("full"), required=True),
        text(
            "animal",
            "Pet name|Name of pet|Animal name",
            "Called|Its name",
            Pool(("Rex", "Molly", "Kiki", "Bruno", "Luna")),
            required=True,
        ),
        choice(
            "species",
            "Species|Kind of animal|Animal",
            "Beast|What it is",
            ("Dog", "Cat", "Bird"),
            kind="radio",
            required=True,
        ),
        *dependent(
            "breed",
            either("Breed|Kind|Race", "Sort|Family"),
            "species",
            {
                "Dog": ("Beagle", "Collie", "Poodle", "Terrier"),
                "Cat": ("Persian", "Siamese", "Tabby"),
                "Bird": ("Canary", "Parrot", "Finch"),
            },
        ),
        number("age", "Age in years|Pet age|Age", "Years old|Lived for", 0, 20),
        day("visit", either("Visit on|Date of visit|Visit date", "Coming on|Day to come"), required=True),
        choice(
            "treatment",
            "Treatments|Wanted treatments|What to do",
            "Care|Work to do",
            ("Check-up", "Vaccination", "Teeth", "Claws"),
            kind="checkbox",
            rank=1,
        ),
        replace(PHONE, rank=1),
    ),
)
FORMS = (TENANCY, POWER, PHONE_PLAN, PARCEL, VET)
