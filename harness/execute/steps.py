"""From plan text to steps that can be run: what each line acts on, or why it cannot."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from dllm_rl.records.plan import VERBS_BY_KIND, Action, Plan
from dllm_rl.records.tasks import Control, Page


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One action with the control it is meant for. `refusal` is the note of an action that no page can run.

    content: of the file that is uploaded.
    """

    action: Action
    control: Control | None = None
    refusal: dict[str, Any] | None = None
    content: bytes = b""

    def payload(self) -> dict[str, Any]:
        """What the page's script needs; data only."""
        assert self.control is not None
        return {
            "verb": self.action.verb,
            "value": self.action.value,
            **self._file(),
            "page": self.control.page_number,
            "key": {"kind": self.control.kind, "field": self.control.field, "name": self.control.name},
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


def make_steps(plan: Plan, page: Page, files: Mapping[str, bytes] = MappingProxyType({})) -> tuple[Step, ...]:
    """Look every ref up in the scouted page and check that the verb fits the control. files: what may be uploaded."""
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


def page_keys(page: Page) -> list[dict[str, Any]]:
    """What identifies each page of a site to the page's script: title, and kind and name of its controls."""
    return [
        {
            "number": number,
            "title": title,
            "keys": sorted({f"{item.kind} {item.field}" for item in page.controls if item.page_number == number}),
        }
        for number, title in enumerate(page.titles, start=1)
    ]
