"""One short line an action on what it changed: structured record first, the sentence made from it."""

from __future__ import annotations

import difflib
from typing import Any

from dllm_rl.records.plan import Action, quote

MAX_SHOWN = 3


def sentence(action: Action, result: dict[str, Any]) -> str:
    """Say what happened. `result` is a note record: status, note, what that note needs, and what else changed.

    appeared, gone: labels of fields. dialogs: what they said.
    """
    return "; ".join([_SENTENCES[result["note"]](action, result), *_beside(result)])


def _beside(result: dict[str, Any]) -> list[str]:
    """Fields that came and went, and dialogs."""
    said = {"new fields": result.get("appeared"), "gone": result.get("gone"), "dialog": result.get("dialogs")}
    return [f"{what}: {', '.join(map(quote, names[:MAX_SHOWN]))}" for what, names in said.items() if names]


def _value_differs(action: Action, result: dict[str, Any]) -> str:
    return f"changed: {action.ref} shows {quote(result['got'])}, you wrote {quote(result['wanted'])}"


def _no_option(action: Action, result: dict[str, Any]) -> str:
    options = result["options"]
    near = difflib.get_close_matches(action.value or "", options, n=MAX_SHOWN, cutoff=0.3)
    shown = ", ".join(quote(option) for option in near or options[:MAX_SHOWN])
    return f"no option {quote(action.value or '')} in {action.ref}; {len(options)} options: {shown}"


def _no_file(action: Action, result: dict[str, Any]) -> str:
    names = ", ".join(map(quote, result["names"][:MAX_SHOWN]))
    return f"no file {quote(action.value or '')}; {len(result['names'])} at hand: {names}"


def _validation(action: Action, result: dict[str, Any]) -> str:
    return "validation: " + "; ".join(f"{item['name']} - {item['message']}" for item in result["messages"][:2])


def _here(result: dict[str, Any]) -> str:
    return f"page {result['here']}" if result["here"] else "no page of the form"


_SENTENCES = {
    "ok": lambda action, result: f"ok {action.verb} {action.ref}",
    "no_change": lambda action, result: f"ok {action.verb} {action.ref}; no visible change",
    "unknown_ref": lambda action, result: f"not found: {action.ref} is no control of this form",
    "not_found": lambda action, result: f"not found: {action.ref}",
    "wrong_verb": lambda action, result: f"cannot {action.verb} a {result['kind']}: {action.ref}",
    "wrong_page": lambda action, result: f"wrong page: {action.ref}; this is {_here(result)}",
    "hidden": lambda action, result: f"hidden: {action.ref}",
    "disabled": lambda action, result: f"disabled: {action.ref}",
    "not_editable": lambda action, result: f"not editable: {action.ref}",
    "covered": lambda action, result: f"obscured: {action.ref} is covered by {quote(result['by'])}",
    "value_differs": _value_differs,
    "no_option": _no_option,
    "no_file": _no_file,
    "validation": _validation,
    "page": lambda action, result: f"page: now {result['here']} {quote(result['title'])}",
    "rejected": lambda action, result: "rejected: " + "; ".join(result["messages"][:2]),
    "busy": lambda action, result: f"busy: {result['message']}",
    "submitted": lambda action, result: "submitted",
    "deadline": lambda action, result: f"deadline passed: {action.ref}",
    "left_site": lambda action, result: f"refused: {action.ref} leads out of the site",
    "skipped": lambda action, result: f"skipped (plan stopped at line {result['line']})",
}
