"""Gold values -> the instruction of a task, by dial (the difficulty of its wording).

Dial 0: the page's own labels and the values, as pairs in any order. Dial 1: sentences that may use another label of the
same field, with facts that nobody asked for. Dial 2: sentences whose values must be converted (dates, numbers in words,
"the cheapest one").
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from random import Random

from dllm_rl.records.plan import quote
from harness.sites import vocabulary as words
from harness.sites.schema import SiteField, Wording

TYPED = Wording(
    train=(
        "The {label} is {value}.",
        "Use {value} as the {label}.",
        "Enter {value} for the {label}.",
        "{value} is the {label}.",
        "Set the {label} to {value}.",
    ),
    held_out=("For the {label}, write {value}.", "Put down {value} as the {label}.", "As the {label}, give {value}."),
)
CHOSEN = Wording(
    train=(
        "Choose {value} for the {label}.",
        "Pick {value} as the {label}.",
        "For the {label} take {value}.",
        "The {label} should be {value}.",
    ),
    held_out=("Go for {value} under {label}.", "Under {label} mark {value}.", "I prefer {value} in {label}."),
)
WANTED = Wording(
    train=("I want this: {label}.", "Please tick {label}.", "Yes to {label}.", "Add {label}."),
    held_out=("Do include {label}.", "{label} should be on."),
)
UNWANTED = Wording(
    train=("I do not want this: {label}.", "Please untick {label}.", "No to {label}.", "Remove {label}."),
    held_out=("Leave out {label}.", "{label} should be off."),
)
FACTS = Wording(
    train=(
        "My friend {first} lives in {city}.",
        "The office in {city} is closed today.",
        "{first} asked me about {company} before.",
        "Last year I was in {city}.",
        "{company} has moved to {city}.",
    ),
    held_out=("{first} says hello from {city}.", "I once worked for {company}.", "It rains in {city}."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One field of a site and the values that the task wants in it, () for a box to be unticked."""

    field: SiteField
    wanted: tuple[str, ...]


def write_instruction(wishes: list[Wish], *, dial: int, is_held_out: bool, rng: Random) -> str:
    """Write the instruction of a task; everything drawn comes from `rng`."""
    wishes = rng.sample(wishes, len(wishes))
    if dial == 0:
        return "; ".join(f"{wish.field.label}: {_pair_value(wish)}" for wish in wishes)
    sentences = [_sentence(wish, dial, is_held_out, rng) for wish in wishes]
    for _ in range(rng.randint(1, 2)):
        sentences.insert(rng.randint(0, len(sentences)), _fact(is_held_out, rng))
    return " ".join(sentences)


def _pair_value(wish: Wish) -> str:
    if _is_box(wish):
        return "yes" if wish.wanted else "no"
    return ", ".join(_plain(value) for value in wish.wanted)


def _is_box(wish: Wish) -> bool:
    return wish.field.spec.kind == "checkbox" and not wish.field.options


def _plain(value: str) -> str:
    """Quote a value that could not be told from the text around it."""
    return quote(value) if any(letter in value for letter in '";\n\\') else value


def _sentence(wish: Wish, dial: int, is_held_out: bool, rng: Random) -> str:
    spec = wish.field.spec
    label = rng.choice(spec.labels.pool(is_held_out)).lower().removeprefix("your ")
    template = rng.choice(_templates(wish).pool(is_held_out))
    if template.startswith("{label}"):
        label = label.capitalize()
    values = [_converted(wish, value) if dial == 2 else _plain(value) for value in wish.wanted]
    return template.format(label=label, value=" and ".join(values))


def _templates(wish: Wish) -> Wording:
    if _is_box(wish):
        return WANTED if wish.wanted else UNWANTED
    return TYPED if wish.field.spec.draw else CHOSEN


def _fact(is_held_out: bool, rng: Random) -> str:
    return rng.choice(FACTS.pool(is_held_out)).format(
        first=rng.choice(words.FIRST_NAMES), city=rng.choice(words.CITIES), company=rng.choice(words.COMPANIES)
    )


def _converted(wish: Wish, value: str) -> str:
    """The same value in words that must be worked out; only superlatives whose answer the site's options decide."""
    spec = wish.field.spec
    if spec.kind == "date":
        day = date.fromisoformat(wish.field.iso(value))
        return f"{day.day} {day:%B} {day.year}"
    if spec.kind == "number":
        return number_in_words(int(value))
    return dict(spec.superlatives).get(value, _plain(value))


def number_in_words(number: int) -> str:
    """Write 0 to 999 999 in English words: 1250 is `one thousand two hundred fifty`."""
    if number < 20:
        return words.ONES[number]
    if number < 100:
        return words.TENS[number // 10] + (f" {words.ONES[number % 10]}" if number % 10 else "")
    unit, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    rest = f" {number_in_words(number % unit)}" if number % unit else ""
    return f"{number_in_words(number // unit)} {name}{rest}"
