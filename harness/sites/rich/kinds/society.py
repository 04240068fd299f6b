"""Society: donation, library, conference and the settings of an account."""

from __future__ import annotations

from harness.sites import vocabulary as words
from harness.sites.forms.common import (
    COUNTRIES,
    EMAIL,
    FULL_NAME,
    NEWS,
    box,
    choice,
    day,
    either,
    number,
    page,
    rows,
    text,
    upload,
    with_login,
)
from harness.sites.schema import FieldSpec, FormSpec, When
from harness.sites.values import Digits, Pool

_TITLES = ("Quiet Water", "The Long Road", "Glass Houses", "Night Trains", "A Small Garden", "Winter Light")


def _book(name: str, row: int) -> tuple[FieldSpec, ...]:
    which = ("Second", "Third")[row - 1]
    return (
        text(
            f"{name}_title",
            f"{which} title|{which} book title|Title of {which.lower()} book",
            f"{which} volume|{which} work",
            Pool(_TITLES),
            required=True,
        ),
        text(
            f"{name}_author",
            f"{which} author|Author of {which.lower()} book|{which} writer",
            f"{which} pen|{which} hand",
            Pool(words.LAST_NAMES),
        ),
    )


def _speaker(name: str, row: int) -> tuple[FieldSpec, ...]:
    return (
        text(
            f"{name}_name",
            "Co-speaker|Name of co-speaker|Second speaker",
            "Fellow speaker|Speaks too",
            Pool(words.FIRST_NAMES),
            required=True,
        ),
        text(
            f"{name}_firm",
            "Co-speaker company|Company of co-speaker|Their company",
            "Fellow firm|Their workplace",
            Pool(words.COMPANIES),
        ),
    )


def _dedication(name: str, row: int) -> tuple[FieldSpec, ...]:
    return (
        text(
            f"{name}_to",
            "In honour of|Dedicated to|Gift for",
            "Meant for|For the sake of",
            Pool(words.FIRST_NAMES),
            required=True,
        ),
    )


DONATION = FormSpec(
    kind="donation",
    domain="charity",
    pages=(page("Give today|Make a donation|Donate", "Help us|Your gift"),),
    fields=(
        number("amount", "Amount|Donation amount|Your amount", "Sum|How much", 10, 210, 10),
        choice(
            "rhythm",
            "How often|Frequency|Rhythm",
            "Again when|Repeats",
            ("Once", "Monthly", "Yearly"),
            kind="radio",
            required=True,
        ),
        choice(
            "cause",
            "Cause|Project|For the project",
            "Where to|Aim of gift",
            ("Clean water", "Schools", "Forests", "Food banks", "Refugees"),
            required=True,
        ),
        FULL_NAME,
        EMAIL,
        box("receipt", "Tax receipt|Send a receipt|Receipt", "Paper for tax|Proof of gift"),
        *rows(
            "honour",
            (either("Add a dedication|Dedicate this gift|Dedication", "Name somebody|Give in a name"),),
            _dedication,
        ),
        NEWS,
    ),
)
LIBRARY = FormSpec(
    kind="library",
    domain="public library",
    pages=(page("Reserve books|Book reservation|Order books", "Books on hold|To be read"),),
    fields=(
        text(
            "card",
            "Card number|Library card|Reader number",
            "Reader card|Lending card",
            Digits("L-00000"),
            required=True,
            pattern=r"L-\d{5}",
            format_hint="L-12345",
        ),
        text("title", "Title|Book title|First title", "Volume|Work", Pool(_TITLES), required=True),
        text("author", "Author|Written by|Writer", "Pen|By whom", Pool(words.LAST_NAMES)),
        *rows(
            "book",
            (
                either("Add second book|Add a book|One more book", "Enter a volume|Volume two"),
                either("Add third book|Another book|Further book", "Next volume|Volume three"),
            ),
            _book,
        ),
        choice(
            "branch",
            "Branch|Pick-up branch|Library branch",
            "House|Where to fetch",
            ("Main library", "North branch", "South branch", "Book bus", "Harbour branch"),
            required=True,
        ),
        day("until", either("Needed until|Hold until|Last day needed", "No later than|Of use until")),
        choice("form", "Format|Kind of copy|Copy", "Edition|Make", ("Print", "Large print", "Audio"), kind="radio"),
    ),
)
CONFERENCE = FormSpec(
    kind="conference_talk",
    domain="conference",
    pages=(
        page("Propose a talk|Talk proposal|Call for talks", "Speak to us|On the stage"),
        page("Your session|Session details|The session", "On the day|Stage needs"),
    ),
    fields=(
        FULL_NAME,
        EMAIL,
        choice(
            "from_country",
            "Coming from|Country you live in|Home country",
            "Travels from|Arrives from",
            COUNTRIES,
            required=True,
        ),
        text(
            "talk",
            "Talk title|Title of the talk|Session title",
            "Heading|Topic line",
            Pool(_TITLES),
            required=True,
            page=2,
        ),
        text(
            "summary",
            "Summary|Abstract|Short summary",
            "In brief|Outline",
            Pool(words.PHRASES, words.PHRASES_FULL),
            kind="textarea",
            required=True,
            max_length=400,
            page=2,
        ),
        choice(
            "track",
            "Track|Subject track|Stream",
            "Strand|Branch of topics",
            ("Science", "Design", "Business", "Law"),
            required=True,
            page=2,
        ),
        number("minutes", "Minutes|Length in minutes|Session length", "Time on stage|Runs for", 15, 65, 5, page=2),
        choice(
            "needs",
            "Equipment|Technical needs|Needed on stage",
            "Tools|Things needed",
            ("Projector", "Sound", "Whiteboard"),
            kind="checkbox",
            rank=1,
            page=2,
        ),
        *rows(
            "speaker",
            (either("Add a co-speaker|Add co-speaker|One more speaker", "Enter a fellow|Speak together"),),
            _speaker,
        ),
        upload(
            "slides",
            "Slides|Slide file|Slide deck",
            "Shown file|Deck file",
            ("slides.pdf", "draft.pdf", "notes.txt"),
            page=2,
        ),
    ),
    has_review=True,
)
ACCOUNT = with_login(
    FormSpec(
        kind="account_settings",
        domain="account",
        pages=(page("Account settings|Your settings|Settings", "How you like it|Setup"),),
        fields=(
            text(
                "nick",
                "Display name|Shown name|Nickname",
                "Seen as|Screen name",
                Pool(words.FIRST_NAMES),
                required=True,
            ),
            choice(
                "language",
                "Language|Site language|Preferred language",
                "Tongue|Words in",
                ("English", "French", "German", "Spanish", "Welsh"),
                required=True,
            ),
            choice(
                "second",
                "Second factor|Two-step login|Extra check",
                "More safety|Double check",
                ("Off", "By text", "By app"),
                kind="radio",
                required=True,
            ),
            text(
                "phone",
                "Phone for codes|Number for codes|Code phone",
                "Codes go to|Code line",
                Digits("555-0000"),
                required=True,
                when=When(field="second", answer="By text"),
                pattern=r"\d{3}-\d{4}",
                format_hint="555-0123",
            ),
            number("logout", "Log out after (min)|Minutes to log-out|Idle minutes", "Waits for|Time at rest", 5, 65, 5),
            box("hidden", "Hide my profile|Private profile|Profile hidden", "Stay unseen|Keep me hidden"),
            upload("avatar", "Profile picture|Avatar|Account picture", "Own image|Small image", ("me.png", "cat.png")),
        ),
    )
)
FORMS = (DONATION, LIBRARY, CONFERENCE, ACCOUNT)
