"""A first file of tasks for a form: values drawn for its fields, by their kind and label."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import Any

from dllm_rl.records.tasks import Control, Observation
from harness.environments.recorded import FORMATS, num_boxes, spoken
from harness.sites import vocabulary as words
from harness.sites.schema import Persona
from harness.sites.values import Address, Day, Digits, OfPersona, Pool, Whole, draw_persona

# How often a field is given that the form does not require.
OPTIONAL_SHARE = 0.7
_KINDS: dict[str, Callable[..., str]] = {
    "email": OfPersona("email"),
    "tel": Digits("555-0000"),
    "number": Whole(1, 9),
    "date": Day("2026-02-01", "2026-12-28"),
}
_LABELS: tuple[tuple[str, Callable[..., str]], ...] = (
    (r"mail", OfPersona("email")),
    (r"phone|mobile|tel\b", Digits("555-0000")),
    (r"first name|given name|forename", OfPersona("first")),
    (r"last name|surname|family name", OfPersona("last")),
    (r"company|organi[sz]ation|employer|firm", Pool(words.COMPANIES)),
    (r"name|owner|applicant|guest|contact", OfPersona("full")),
    (r"city|town|place|from\b|to\b|origin|destination", Pool(words.CITIES)),
    (r"street|address", Address()),
    (r"zip|postcode|postal", Digits("10000")),
    (r"number|amount|quantity|how many|guests|age", Whole(1, 9)),
)
_FORMATTED: dict[str, Callable[[Random], str]] = {
    "hh:mm": lambda rng: f"{rng.randint(8, 19):02d}:{rng.choice((0, 15, 30, 45)):02d}",
    "YYYY-MM": lambda rng: f"2026-{rng.randint(1, 12):02d}",
    "YYYY-Www": lambda rng: f"2026-W{rng.randint(2, 51):02d}",
    "YYYY-MM-DDThh:mm": lambda rng: (
        f"2026-{rng.randint(2, 12):02d}-{rng.randint(1, 28):02d}T{rng.randint(8, 19):02d}:30"
    ),
    "#rrggbb": lambda rng: rng.choice(("#dc143c", "#1e90ff", "#228b22", "#ffd700")),
}
_NOT_DRAWN = frozenset({"button", "link", "file"})


def draft(page: Observation, start: str, rng: Random) -> dict[str, Any]:
    """Draw one task: a line of the file, with the instruction as `label: value` pairs in any order."""
    persona = draw_persona(rng, "small")
    values: dict[str, Any] = {}
    answers: dict[str, set[str]] = {}
    for control in page.controls:
        key = _key(control, page)
        if control.kind in _NOT_DRAWN or key in values or not _is_there(control, page, answers):
            continue
        if not control.required and rng.random() > OPTIONAL_SHARE:
            continue
        values[key] = value = _value(control, page, rng, persona)
        answers[control.field] = {str(item) for item in (value if isinstance(value, list) else [value])}
    pairs = [f"{key}: {spoken(value)}" for key, value in values.items()]
    return {"instruction": "; ".join(rng.sample(pairs, len(pairs))), "start": start, "values": values}


def _key(control: Control, page: Observation) -> str:
    """The label, unless other fields have it too: then the HTML name."""
    label = control.group or control.name
    fields = {other.field for other in page.controls if (other.group or other.name) == label}
    return label if label and len(fields) == 1 else control.field


def _is_there(control: Control, page: Observation, answers: dict[str, set[str]]) -> bool:
    """Whether what was drawn so far shows the control; what a click opens is taken to be there."""
    if control.condition is None or control.condition.value == "open":
        return True
    decider = page.control(control.condition.ref)
    given = answers.get(decider.field, set()) if decider is not None else set()
    if decider is not None and decider.kind == "checkbox":
        return ("True" in given or decider.name in given) == (control.condition.value == "checked")
    return control.condition.value in given


def _value(control: Control, page: Observation, rng: Random, persona: Persona) -> Any:
    peers = [other for other in page.controls if other.field == control.field and other.kind == control.kind]
    if control.kind == "radio":
        return rng.choice([peer.name for peer in peers])
    if control.kind == "checkbox":
        if len(peers) == 1:
            return control.required or rng.random() < 0.5 or control.value != "checked"
        return [peer.name for peer in peers if peer is control or rng.random() < 0.4]
    if control.kind == "multiselect":
        num_picked = rng.randint(1, min(2, len(control.options))) if control.options else 0
        return sorted(rng.sample(control.options, num_picked), key=control.options.index)
    if control.options and control.options[0] in FORMATS:
        return _FORMATTED[control.options[0]](rng)
    if length := num_boxes(control):
        return "".join(rng.choice("0123456789") for _ in range(length))
    if control.options:
        return rng.choice([option for option in control.options if option != control.value] or control.options)
    return [_typed(control, rng, persona) for _ in peers] if len(peers) > 1 else _typed(control, rng, persona)


def _typed(control: Control, rng: Random, persona: Persona) -> str:
    draw = _KINDS.get(control.kind)
    if draw is None and control.kind == "text":
        label = f"{control.name} {control.field}".lower()
        draw = next((draw for pattern, draw in _LABELS if re.search(pattern, label)), None)
    return (draw or Pool(words.PHRASES))(rng, persona, "small")
