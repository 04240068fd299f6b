"""Which request is the form, and whether the application took it.

The form is the request that carries its fields, whatever its method: one that loads a document (POST, or GET with a
query), else one that a script sends (POST, PUT or PATCH). A request that carries half of the given fields or less is
none: telemetry, a name that is looked up, a file that goes ahead. Neither is what a script sends before anything was
pressed, such as a draft that is kept, nor the page on which a rollout begins, whatever its address says. Names are
compared with a control's name, its id and its label; a field that stands deep in a record by its path, else by its last
name.

It was taken where, in this order, the answer

1. meets the user's criterion, where there is one,
2. is a redirect to another page than the same form with errors,
3. is a 2xx that neither shows the same form again with errors, nor is a page without it that is about an error, nor a
   record that calls itself a failure.

A form of several pages is taken with its last page. One that only confirms comes after all the others were taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.recorder.html import shown, words
from harness.recorder.payload import Fields, folded
from harness.recorder.proxy import Exchange

_WRITES = ("POST", "PUT", "PATCH")
_FAILURES = frozenset({"error", "failed", "failure", "fail", "invalid"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """What the user calls success. All that is given must hold.

    Attributes:
        status: Status of the answer, one of these.
        path: Path of the page to which the answer leads.
        text: What the answer says, or the page to which it leads.
    """

    status: tuple[int, ...] = ()
    path: str = ""
    text: str = ""

    def complaints(self, answer: Exchange, page: Exchange) -> tuple[str, ...]:
        """Say what does not hold of an answer and of the page that it led to; but for redirects, they are one."""
        found = []
        if self.status and answer.status not in self.status:
            found.append(f"the application answered {answer.status}, not {' or '.join(map(str, self.status))}")
        if self.path and page.path != self.path:
            found.append(f"the answer led to {page.path}, not to {self.path}")
        if self.text and self.text.casefold() not in words(page.answer).casefold():
            found.append(f"the answer does not say '{self.text}'")
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What tells a form among all that a page sends.

    Attributes:
        spellings: Field by each way in which it may be written: name, id, and folded label.
        given: Fields that the plan gives or the page holds from the start.
        pages: Fields of each of its pages, where it has several.
        criterion: When it was taken, where the user says so.
    """

    spellings: Mapping[str, str]
    given: frozenset[str]
    pages: tuple[frozenset[str], ...] = ()
    criterion: Criterion | None = None

    def read(self, sent: Fields) -> dict[str, tuple[str, ...]]:
        """The values of this form's fields; what stands for none of them (tokens, state of scripts) is left out."""
        found: dict[str, tuple[str, ...]] = {}
        for name, values in sent.items():
            field = self._field(name)
            if field is not None:
                found[field] = (*found.get(field, ()), *values)
        return found

    def unread(self, sent: Fields) -> Fields:
        """What stands for none of this form's fields."""
        return {name: values for name, values in sent.items() if self._field(name) is None}

    @property
    def has_review(self) -> bool:
        """Whether its last page only confirms what the others gave."""
        return bool(self.pages) and not self.pages[-1]

    def is_last(self, read: Fields) -> bool:
        """Whether this is what its last page sends."""
        if not self.pages:
            return True
        return self.is_review(read) or bool(self.pages[-1] & set(read))

    def is_review(self, read: Fields) -> bool:
        """Whether this can only be what a last page sends that confirms what the others gave."""
        return self.has_review and not read

    def is_taken(self, taken: Fields) -> bool:
        """Whether all pages before the last one were taken, as far as anything is given on them."""
        return bool(taken) and all(page & set(taken) for page in self.pages[:-1] if page & self.given)

    def part(self, read: Fields) -> frozenset[str]:
        """Fields of the page that sends this, as far as they are given."""
        own = next((page for page in self.pages if page & set(read)), None)
        return self.given if own is None else self.given & own

    def _field(self, name: str) -> str | None:
        last = re.split(r"[.\[]", name.rstrip("]"))[-1]
        in_brackets = re.sub(r"\.([^.]+)", r"[\1]", name)
        tries = (name, in_brackets, last, folded(name), folded(last))
        return next((self.spellings[spelling] for spelling in tries if spelling in self.spellings), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One time that the form was sent.

    Attributes:
        fields: HTML values by field, with those of the pages that were taken before.
        status: Status of the answer.
        complaints: What the application said against it; () where it took the form.
        is_last: Whether it was the last page of the form.
    """

    fields: Fields
    status: int
    complaints: tuple[str, ...]
    is_last: bool = True

    @property
    def is_accepted(self) -> bool:
        """Whether the application took the form, or this page of it."""
        return not self.complaints


def submissions(exchanges: Sequence[Exchange], form: Form, *, pressed_after: int | None = 0) -> list[Sent]:
    """All times that the form was sent, in order; of a form of several pages, all times that a page of it was.

    Args:
        exchanges: What the page sent, and the answers.
        form: What tells the form among the rest.
        pressed_after: How many requests came before something was pressed; None where nothing was. Until then a script
            may look things up and keep a draft, but it hands nothing in.
    """
    read = {at: form.read(item.fields) for at, item in enumerate(exchanges)}
    first = _first_page(exchanges)
    sent = [at for at, item in enumerate(exchanges) if is_form(item, form, pressed_after) and _said(item) not in first]
    loading = [at for at in sent if exchanges[at].is_document]
    found: list[Sent] = []
    taken: dict[str, tuple[str, ...]] = {}
    for at in loading or sent:
        if form.is_review(read[at]) and not form.is_taken(taken):
            continue
        is_last = form.is_last(read[at])
        complaints = _complaints(exchanges, at, form.criterion if is_last else None)
        fields = {**taken, **read[at]}
        found.append(Sent(fields=fields, status=exchanges[at].status, complaints=complaints, is_last=is_last))
        if form.pages and not complaints:
            taken = fields
    return found


def is_form(exchange: Exchange, form: Form, pressed_after: int | None) -> bool:
    """Whether a request sends the form or a page of it; for the arguments see `submissions`."""
    read = form.read(exchange.fields)
    if exchange.is_document:
        return _loads(exchange, read, form)
    is_late = pressed_after is not None and exchange.num_before >= pressed_after
    return is_late and exchange.method in _WRITES and _carries(read, form)


def _said(exchange: Exchange) -> tuple[str, str, Fields]:
    return exchange.method, exchange.path, exchange.fields


def _first_page(exchanges: Sequence[Exchange]) -> list[tuple[str, str, Fields]]:
    """What asks for the page on which the rollout begins: its first document, and where the redirects of that lead."""
    found = []
    for item in exchanges:
        if item.method != "GET" or not item.is_document:
            break
        found.append(_said(item))
        if not _is_redirect(item):
            break
    return found


def _is_redirect(exchange: Exchange) -> bool:
    return 300 <= exchange.status < 400


def _loads(exchange: Exchange, read: Fields, form: Form) -> bool:
    """A form that loads a document carries all its fields; one with nothing to say, none."""
    if exchange.method == "GET":
        return _carries(read, form)
    return exchange.method in _WRITES and (bool(read) or not exchange.fields or form.has_review)


def _carries(read: Fields, form: Form) -> bool:
    return bool(read) and 2 * len(read) > len(form.part(read))


def _complaints(exchanges: Sequence[Exchange], at: int, criterion: Criterion | None) -> tuple[str, ...]:
    answer = exchanges[at]
    is_redirect = _is_redirect(answer)
    pages = (item for item in exchanges[at + 1 :] if item.is_document and not _is_redirect(item))
    following = next(pages, None) if is_redirect else answer
    if criterion is not None:
        return criterion.complaints(answer, following or answer)
    if not 200 <= answer.status < 400:
        return (f"the application answered {answer.status}",)
    if is_redirect:
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
    """Errors beside the same form, if the answer shows it again, else those of a page that calls them so.

    What stood there before anything was sent is none.
    """
    again = shown(answer.answer)
    is_form = 2 * len(again.fields & set(exchanges[at].fields)) > len(exchanges[at].fields)
    untouched = [
        item
        for before, item in zip((None, *exchanges[:at]), exchanges[:at], strict=False)
        if item.method == "GET" and item.is_document and not (before and before.method != "GET")
    ]
    known = {text for item in untouched for text in shown(item.answer).errors}
    return tuple(text for text in (again.errors if is_form else again.failures) if text not in known)
