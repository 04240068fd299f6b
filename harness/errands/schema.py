"""What an errand is made of: pages with entries, links and passages, and what the server and the oracle do on each.

An errand is a small site whose task needs several turns. Everything in it follows from its key. Pages are data; the
server (`harness.errands.server`) and the oracle (`harness.errands.oracle`) read the same records, so that what the
oracle does is what the site asks for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from dllm_rl.records.tasks import ControlKind, GoldField

# Key of no page.
NEVER = "-"
# Field under which the answer that `done` gives is judged.
ANSWER = "answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A rule of the server's own.

    Attributes:
        message: What it answers to another value than `accepts`, a regular expression.
    """

    accepts: str
    message: str

    def complains(self, value: str) -> bool:
        """Whether this value is refused."""
        return re.fullmatch(self.accepts, value) is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One field of a page.

    Attributes:
        name: HTML attribute.
        label: Its label.
        kind: "text", "number", "date", "select", "radio" or "checkbox" (a single box).
        options: Of a select or of radios.
        value: What it holds at first; "on" for a box that is ticked.
        wanted: What the task asks for. None: it stays as it is.
        first_try: What the task's words suggest where the server takes only `wanted`, as its answer explains.
        check: A rule of the server's own.
        is_required: Whether the server refuses a page without it.
        is_recorded: Whether it belongs to the record that is judged; a search or a password does not.
    """

    name: str
    label: str
    kind: ControlKind = "text"
    options: tuple[str, ...] = ()
    value: str = ""
    wanted: str | None = None
    first_try: str | None = None
    check: Check | None = None
    is_required: bool = True
    is_recorded: bool = True

    @property
    def default(self) -> tuple[str, ...]:
        """What an untouched page sends."""
        return (self.value,) if self.value else ()

    def complaint(self, values: tuple[str, ...]) -> str:
        """Why the server refuses these values; "" where it takes them."""
        if not values:
            return f"{self.label}: this is required." if self.is_required and self.kind != "checkbox" else ""
        return f"{self.label}: {self.check.message}" if self.check and self.check.complains(values[0]) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A link to another page.

    Attributes:
        text: Its words, by which it is searched too.
        note: text that stands behind it.
    """

    text: str
    to: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of an errand.

    Attributes:
        key: Its place in addresses.
        title: Its heading; no two pages of an errand have the same.
        entries: Fields of its form.
        links: Links, in order.
        passages: Text, a paragraph each.
        button: Caption of the form's button; "" for a page without a form.
        next: The page after the button; "" where the record is complete and accepted.
        branches: The page after the button by (entry, answer), before `next`.
        gives: What the button adds to the record, by name.
        is_adding: Whether it adds to what the record has under that name already.
        filtered_by: Entry whose answer the links must contain to be shown, wherever it was given.
        num_refusals: How often the server is busy and takes nothing.
        num_waits: How often the page has to be waited for; then it becomes `next` by itself.
        interruption: Page that comes up once instead of taking the form, such as a sign-in that has run out.
        notice: What covers the page, once, until it is closed.
        needs: Pages that the oracle has seen before it uses the button; `NEVER` where it does not use it.
        follow: Pages that the oracle opens from here: the first one that it has not seen, else the last one.
        remember: What the oracle notes here for later.
    """

    key: str
    title: str
    entries: tuple[Entry, ...] = ()
    links: tuple[Link, ...] = ()
    passages: tuple[str, ...] = ()
    button: str = ""
    next: str = ""
    branches: tuple[tuple[str, str, str], ...] = ()
    gives: tuple[tuple[str, str], ...] = ()
    is_adding: bool = False
    filtered_by: str = ""
    num_refusals: int = 0
    num_waits: int = 0
    interruption: str = ""
    notice: str = ""
    needs: tuple[str, ...] = ()
    follow: tuple[str, ...] = ()
    remember: str = ""

    def after(self, answers: Mapping[str, tuple[str, ...]]) -> str:
        """Key of the page after the button; "" for none."""
        for entry, answer, key in self.branches:
            if answers.get(entry) == (answer,):
                return key
        return self.next

    def matching(self, answers: Mapping[str, tuple[str, ...]]) -> tuple[Link, ...]:
        """The links that are shown."""
        asked = " ".join(answers.get(self.filtered_by, ())).lower()
        return tuple(item for item in self.links if asked in item.text.lower())


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """One errand.

    Attributes:
        key: `errand.<kind>.d<difficulty>.s<seed>`.
        kind: Its kind.
        instruction: What is asked for.
        pages: Its pages; the first one is the start.
        path: Keys of the pages that lead to the goal, in order.
        brand: Name of the site.
        answer: What `done` must say; "" where nothing is asked.
        done: Words of the page after acceptance.
    """

    key: str
    kind: str
    instruction: str
    pages: tuple[Page, ...]
    path: tuple[str, ...]
    brand: str
    answer: str = ""
    done: str = "Thank you."
    _by_key: dict[str, Page] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._by_key.update({page.key: page for page in self.pages})

    def page(self, key: str) -> Page | None:
        """The page of this key."""
        return self._by_key.get(key)

    def titled(self, title: str) -> Page | None:
        """The page with this heading."""
        return next((page for page in self.pages if page.title == title), None)

    @property
    def defaults(self) -> dict[str, tuple[str, ...]]:
        """The record of a site that nobody touched."""
        given = {name: () for page in self.pages for name, _ in page.gives}
        entries = [item for page in self.pages for item in page.entries if item.is_recorded]
        return given | {item.name: item.default for item in entries}

    @property
    def gold(self) -> tuple[GoldField, ...]:
        """What must be received. A page that adds counts where the oracle goes there."""
        wanted = [
            GoldField(name=item.name, kind=item.kind, wanted=(item.wanted,), label=item.label)
            for page in self._on_path()
            for item in page.entries
            if item.is_recorded and item.wanted is not None
        ]
        added: dict[str, list[str]] = {}
        for page in self._on_path():
            for name, value in page.gives:
                added.setdefault(name, []).append(value)
        wanted += [
            GoldField(name=name, kind="multiselect", wanted=tuple(values), label=name) for name, values in added.items()
        ]
        if self.answer:
            wanted.append(GoldField(name=ANSWER, kind="text", wanted=(self.answer,), label="answer"))
        return tuple(wanted)

    def _on_path(self) -> list[Page]:
        return [self._by_key[key] for key in dict.fromkeys(self.path)]
