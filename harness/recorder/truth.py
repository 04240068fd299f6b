"""Which request is the form, and whether the application took it.

The form is the request that carries its fields, whatever its method: one that loads a document (POST, or GET with a
query), else one that a script sends (POST, PUT or PATCH). A request that carries half of the given fields or less is
none: telemetry, a name that is looked up, a file that goes ahead. Names are compared with a control's name, its id and
its label; a field that stands deep in a record by its path, else by its last name.

It was taken where, in this order, the answer

1. is a redirect to another page than the same form with errors,
2. is a 2xx that neither shows the same form again with errors, nor is a record that calls itself a failure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.recorder.html import shown
from harness.recorder.payload import Fields, folded
from harness.recorder.proxy import Exchange

_WRITES = ("POST", "PUT", "PATCH")
_FAILURES = frozenset({"error", "failed", "failure", "fail", "invalid"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What tells a form among all that a page sends.

    Attributes:
        spellings: Field by each way in which it may be written: name, id, and folded label.
        given: Fields that the plan gives or the page holds from the start.
    """

    spellings: Mapping[str, str]
    given: frozenset[str]

    def read(self, sent: Fields) -> dict[str, tuple[str, ...]]:
        """The values of this form's fields; what stands for none of them (tokens, state of scripts) is left out."""
        found: dict[str, tuple[str, ...]] = {}
        for name, values in sent.items():
            field = self._field(name)
            if field is not None:
                found[field] = (*found.get(field, ()), *values)
        return found

    def _field(self, name: str) -> str | None:
        last = re.split(r"[.\[]", name.rstrip("]"))[-1]
        in_brackets = re.sub(r"\.([^.]+)", r"[\1]", name)
        tries = (name, in_brackets, last, folded(name), folded(last))
        return next((self.spellings[spelling] for spelling in tries if spelling in self.spellings), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One time that the form was sent.

    Attributes:
        fields: HTML values by field.
        status: Status of the answer.
        complaints: What the application said against it; () where it took the form.
    """

    fields: Fields
    status: int
    complaints: tuple[str, ...]

    @property
    def is_accepted(self) -> bool:
        """Whether the application took it."""
        return not self.complaints


def submissions(exchanges: Sequence[Exchange], form: Form, *, has_pressed: bool = True) -> list[Sent]:
    """All times that the form was sent, in order.

    Args:
        exchanges: What the page sent, and the answers.
        form: What tells the form among the rest.
        has_pressed: Whether anything was pressed. Without that, a script may look things up, but it hands nothing in.
    """
    read = {at: form.read(item.fields) for at, item in enumerate(exchanges)}
    loading = [at for at, item in enumerate(exchanges) if item.is_document and _loads(item, read[at], form)]
    scripted = [
        at
        for at, item in enumerate(exchanges)
        if has_pressed and not item.is_document and item.method in _WRITES and _carries(read[at], form)
    ]
    return [
        Sent(fields=read[at], status=exchanges[at].status, complaints=_complaints(exchanges, at))
        for at in loading or scripted
    ]


def _loads(exchange: Exchange, read: Fields, form: Form) -> bool:
    """A form that loads a document carries all its fields; one with nothing to say, none."""
    if exchange.method == "GET":
        return _carries(read, form)
    return exchange.method in _WRITES and (bool(read) or not exchange.fields)


def _carries(read: Fields, form: Form) -> bool:
    return bool(read) and 2 * len(read) > len(form.given)


def _complaints(exchanges: Sequence[Exchange], at: int) -> tuple[str, ...]:
    answer = exchanges[at]
    if not 200 <= answer.status < 400:
        return (f"the application answered {answer.status}",)
    if answer.status >= 300:
        following = next((item for item in exchanges[at + 1 :] if item.is_document), None)
        return _errors(exchanges, at, following) if following is not None else ()
    return _failure(answer.answer) or _errors(exchanges, at, answer)


def _failure(body: bytes) -> tuple[str, ...]:
    """What a record says that calls itself a failure."""
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(record, dict):
        return ()
    says_so = [record.get("error"), record.get("errors"), record.get("success") is False, record.get("ok") is False]
    says_so.append(str(record.get("status", "")).casefold() in _FAILURES)
    return (f"the application answered {_brief(record)}",) if any(says_so) else ()


def _brief(record: dict[str, Any]) -> str:
    text = json.dumps(record, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _errors(exchanges: Sequence[Exchange], at: int, answer: Exchange) -> tuple[str, ...]:
    """Errors beside the same form, if the answer shows it again. What stood there before anything was sent is none."""
    again = shown(answer.answer)
    if 2 * len(again.fields & set(exchanges[at].fields)) <= len(exchanges[at].fields):
        return ()
    untouched = [
        item
        for before, item in zip((None, *exchanges[:at]), exchanges[:at], strict=False)
        if item.method == "GET" and item.is_document and not (before and before.method != "GET")
    ]
    known = {text for item in untouched for text in shown(item.answer).errors}
    return tuple(text for text in again.errors if text not in known)
