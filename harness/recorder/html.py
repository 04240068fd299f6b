"""What a page of HTML shows, read without a browser: names of its fields, and what it announces as errors."""

from __future__ import annotations

from dataclasses import dataclass
from html.parser import HTMLParser
from typing import NamedTuple

from harness.recorder.payload import folded

_VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
)
_UNSEEN = frozenset({"script", "style", "template", "noscript"})
# What frameworks call the elements in which they say what is wrong, and the fields they say it of.
_ERROR_CLASSES = frozenset(
    {"error", "errors", "errorlist", "error-message", "field-error", "form-error", "alert-danger", "alert-error"}
)
# Words in the classes of an alert. One that says that all is well has the role too; one of both kinds is an error.
_GOOD_WORDS = frozenset({"success", "info", "status", "notice"})
_BAD_WORDS = frozenset({"error", "errors", "danger", "warning", "invalid"})
_FIELD_CLASSES = frozenset({"is-invalid", "has-error", "field_with_errors"})


@dataclass(frozen=True, slots=True)
class Shown:
    """What a page shows.

    Attributes:
        fields: Names of its fields.
        errors: Texts of alerts and error lists; without any, one for each field that is marked as wrong.
        failures: Those of them that are called errors; an alert alone may say anything.
    """

    fields: frozenset[str]
    errors: tuple[str, ...]
    failures: tuple[str, ...]


def shown(content: bytes) -> Shown:
    """Read a page; what is no HTML shows nothing."""
    reader = _Reader()
    reader.feed(content.decode("utf-8", errors="replace"))
    reader.close()
    marked = tuple(f"{name} is marked as wrong" for name in reader.marked)
    errors = tuple(dict.fromkeys(reader.errors)) or marked
    return Shown(frozenset(reader.fields), errors, tuple(dict.fromkeys(reader.failures)))


def words(content: bytes) -> str:
    """All that a page says, unseen parts left out; what is no HTML is taken as it is."""
    text = content.decode("utf-8", errors="replace")
    reader = _Words()
    reader.feed(text)
    reader.close()
    return " ".join(reader.words)


def _is_good_news(classes: set[str]) -> bool:
    words = set(folded(" ".join(classes)).split())
    return bool(words & _GOOD_WORDS) and not words & _BAD_WORDS


class _Element(NamedTuple):
    """An open element: whether it announces an error, is called one, and is not seen."""

    tag: str
    is_error: bool
    is_failure: bool
    is_unseen: bool


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.fields: set[str] = set()
        self.marked: list[str] = []
        self.errors: list[str] = []
        self.failures: list[str] = []
        self._open: list[_Element] = []
        self._words: list[str] = []
        self._is_failure = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        classes = set(values.get("class", "").split())
        name = values.get("name", "")
        if tag in ("input", "select", "textarea") and name:
            self.fields.add(name)
            if values.get("aria-invalid") == "true" or classes & _FIELD_CLASSES:
                self.marked.append(name)
        if tag not in _VOID:
            is_failure = bool(classes & _ERROR_CLASSES)
            is_error = is_failure or (values.get("role") == "alert" and not _is_good_news(classes))
            style = values.get("style", "").replace(" ", "")
            is_unseen = tag in _UNSEEN or "hidden" in values or "display:none" in style
            self._open.append(_Element(tag, is_error, is_failure, is_unseen))

    def handle_endtag(self, tag: str) -> None:
        if tag not in [item.tag for item in self._open]:
            return
        while self._open.pop().tag != tag:
            pass
        if not any(item.is_error for item in self._open):
            self._end_error()

    def handle_data(self, data: str) -> None:
        if any(item.is_error for item in self._open) and not any(item.is_unseen for item in self._open):
            self._words += data.split()
            self._is_failure |= any(item.is_failure for item in self._open)

    def close(self) -> None:
        super().close()
        self._end_error()

    def _end_error(self) -> None:
        if self._words:
            self.errors.append(" ".join(self._words))
            self.failures += self.errors[-1:] if self._is_failure else []
            self._words, self._is_failure = [], False


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unseen += tag in _UNSEEN

    def handle_endtag(self, tag: str) -> None:
        self._unseen -= tag in _UNSEEN

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.words += data.split()
