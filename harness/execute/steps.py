"""Steps of a plan: what each line acts on, or why it cannot, and one line of feedback on what it did."""

from __future__ import annotations

import base64
import difflib
import mimetypes
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from dllm_rl.records.plan import VERBS_BY_KIND, Action, Plan, quote
from dllm_rl.records.tasks import Control, Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One action with the control it is meant for.

    Attributes:
        action: The action.
        control: Its control; None for an unknown ref.
        refusal: Note of an action that no page can run; None for the others.
        content: Content of the file to upload.
    """

    action: Action
    control: Control | None = None
    refusal: dict[str, Any] | None = None
    content: bytes = b""

    @property
    def is_press(self) -> bool:
        """Whether it presses a button, a link, or a key that sends a form."""
        if self.action.verb == "press":
            return self.action.value in ("Enter", "Space")
        return self.control is not None and self.control.kind in ("button", "link")

    def payload(self) -> dict[str, Any]:
        """What the page's script needs; data only."""
        assert self.control is not None
        return {
            "verb": self.action.verb,
            "value": self.action.value,
            **self._file(),
            "page": self.control.page_number,
            "key": _key(self.control),
        }

    def _file(self) -> dict[str, Any]:
        if self.action.verb != "upload":
            return {}
        name = self.action.value or ""
        return {"file": payloads({name: self.content})[name]}


def payloads(files: Mapping[str, bytes]) -> dict[str, dict[str, str]]:
    """Files as the page's script takes them, by name."""
    return {
        name: {
            "type": mimetypes.guess_type(name)[0] or "application/octet-stream",
            "base64": base64.b64encode(content).decode(),
        }
        for name, content in files.items()
    }


def make_steps(plan: Plan, page: Observation, files: Mapping[str, bytes] = MappingProxyType({})) -> tuple[Step, ...]:
    """Look every ref up in the scouted page, and check that the verb fits the control.

    Args:
        plan: The plan.
        page: The scouted page.
        files: By name, what `upload` may hand over.
    """
    controls = {control.ref: control for control in page.controls}
    return tuple(_make_step(action, controls.get(action.ref), files) for action in plan.actions)


def _make_step(action: Action, control: Control | None, files: Mapping[str, bytes]) -> Step:
    if control is None:
        return Step(action=action, refusal={"status": "failed", "note": "unknown_ref"})
    if action.verb not in VERBS_BY_KIND[control.kind]:
        return Step(action=action, refusal={"status": "failed", "note": "wrong_verb", "kind": control.kind})
    if action.verb == "upload":
        content = files.get(action.value or "")
        if content is None:
            return Step(action=action, refusal={"status": "failed", "note": "no_file", "names": list(files)})
        return Step(action=action, control=control, content=content)
    return Step(action=action, control=control)


def page_keys(page: Observation) -> list[dict[str, Any]]:
    """What identifies each page of a site to the page's script: title, kind and name of its controls.

    `kept` are the controls whose element is looked up as soon as the page is there: those that only their place or
    their label tells from others.
    """
    records = []
    for number, title in enumerate(page.titles, start=1):
        controls = [item for item in page.controls if item.page_number == number]
        counts = Counter(map(_identity, controls))
        unsure = [item for item in controls if not item.field or counts[_identity(item)] > 1]
        records.append(
            {
                "number": number,
                "title": title,
                "keys": sorted({f"{item.kind} {item.field}" for item in controls}),
                "kept": [_key(item) for item in unsure],
            }
        )
    return records


# Controls of one field that are told by their names: options of a group, and buttons and links, which have no field.
KNOWN_BY_NAME = frozenset({"radio", "checkbox", "button", "link"})


def _identity(control: Control) -> tuple[str, ...]:
    """What tells a control from others before places are counted."""
    return (control.kind, control.field, control.name if control.kind in KNOWN_BY_NAME else "")


def _key(control: Control) -> dict[str, Any]:
    """What finds the control again in a document."""
    return {"kind": control.kind, "field": control.field, "name": control.name, "place": control.place}


MAX_SHOWN = 3


def sentence(action: Action, result: dict[str, Any]) -> str:
    """Say what happened.

    Args:
        action: The action.
        result: A note record: `status`, `note`, what that note needs, and what else changed: labels of fields that
            `appeared` or are `gone`, and texts of `dialogs`.
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
    "unknown_ref": lambda action, result: f"not found: {action.ref} is not a control of this form",
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
    "broken": lambda action, result: f"the page broke at {action.ref}, every time",
    "left_site": lambda action, result: f"refused: {action.ref} leads out of the site",
    "scrolled": lambda action, result: f"ok scroll {action.value}",
    "page_ends": lambda action, result: f"ok scroll {action.value}; the page ends here",
    "noted": lambda action, result: "ok note",
    "waited": lambda action, result: "ok wait",
    "nothing_happened": lambda action, result: "ok wait; no visible change",
    "no_way_back": lambda action, result: "no way back: this is the first page",
    "sent_before": lambda action, result: "no way back: the page before is the answer to a form that was sent",
    "done": lambda action, result: "done",
    "too_many": lambda action, result: f"skipped (at most {result['limit']} actions a turn)",
    "skipped": lambda action, result: f"skipped (plan stopped at line {result['line']})",
}
