"""One walk through a site in the real browser: explore each page, answer it, go on to the next.

What the page's script reports becomes records: controls as they were seen, and what tells two of them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from dllm_rl.records.tasks import Condition, Control, ControlKind
from harness.browser import Tab
from harness.execute import payloads
from harness.execute.steps import KNOWN_BY_NAME

CHOICES = frozenset({"select", "multiselect", "radio", "checkbox"})


@dataclass(frozen=True, slots=True)
class Key:
    """Identity of a control on its page: options of a group share a field and differ by name, others by their place."""

    kind: ControlKind
    field: str
    name: str
    place: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One visible control, before it has a ref."""

    kind: ControlKind
    name: str
    group: str
    options: tuple[str, ...]
    required: bool
    disabled: bool
    value: str
    field: str
    place: int = 0

    @classmethod
    def read(cls, record: dict[str, Any]) -> Seen:
        """Read one entry of the inventory."""
        return cls(**{**record, "options": tuple(record["options"])})

    @property
    def key(self) -> Key:
        """What finds this control again when its label or value has changed."""
        name = self.name if self.kind in KNOWN_BY_NAME else ""
        return Key(kind=self.kind, field=self.field, name=name, place=self.place)

    def control(self, ref: str, condition: Condition | None) -> Control:
        """The control as a policy observes it."""
        return Control(
            ref=ref,
            kind=self.kind,
            name=self.name,
            group=self.group,
            options=self.options,
            required=self.required,
            disabled=self.disabled,
            value=self.value,
            condition=condition,
            field=self.field,
            place=self.place,
        )


Answers = Mapping[str, tuple[str, ...]]
MAX_PAGES = 20
EXPLORE_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What stood on a page after one choice (None for the page as it loads), in reading order."""

    decider: Key | None
    value: str
    controls: tuple[Seen, ...]

    @classmethod
    def read(cls, record: dict[str, Any]) -> Sight:
        """Read one state of the exploration."""
        return cls(
            decider=Seen.read(record["decider"]).key if record["decider"] else None,
            value=record["value"] or "",
            controls=tuple(map(Seen.read, record["controls"])),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One page of one walk.

    Attributes:
        title: Title of the page.
        sights: What was seen on it, first as it loaded.
        answers: Form data with which the page was left, by field, in visible texts.
    """

    title: str
    sights: tuple[Sight, ...]
    answers: Mapping[str, tuple[str, ...]]

    @property
    def controls(self) -> tuple[Seen, ...]:
        """The controls of the page as it loaded."""
        return self.sights[0].controls


async def walk(
    tab: Tab,
    start_url: str,
    answers: Answers,
    *,
    num_pages: int = MAX_PAGES,
    files: Mapping[str, bytes] = MappingProxyType({}),
    is_injected: Callable[[], bool] = lambda: False,
) -> tuple[Visit, ...]:
    """Walk until a page cannot be left, has no control, or is number `num_pages`; that last page is not submitted.

    Args:
        tab: The tab to walk in.
        start_url: Address of the first page.
        answers: Values by field name that get past every page.
        num_pages: Page at which the walk ends.
        files: Contents of files by name, for file fields.
        is_injected: As for `Tab.loaded`.
    """
    await tab.goto(start_url)
    visits: list[Visit] = []
    while len(visits) < num_pages:
        seen = await tab.call("look", [], seconds=2.0)
        sights = tuple(map(Sight.read, await tab.call("explore", seconds=EXPLORE_SECONDS)))
        if not any(control.kind != "link" for control in sights[0].controls):
            break
        if len(visits) + 1 == num_pages:
            visits.append(Visit(title=seen["title"], sights=sights, answers={}))
            break
        tab.expect_load()
        request = {"answers": {name: list(values) for name, values in answers.items()}, "files": payloads(files)}
        left = await tab.call("answer", request, seconds=5.0)
        given = {name: tuple(values) for name, values in left["values"].items()}
        visits.append(Visit(title=seen["title"], sights=sights, answers=given))
        if not left["isLeaving"]:
            break
        if not await tab.loaded(is_injected=is_injected) or await _was_refused(tab, visits[-1]):
            break
    return tuple(visits)


async def _was_refused(tab: Tab, visit: Visit) -> bool:
    """The same page again, with a message: the answers did not pass."""
    after = await tab.call("look", [], seconds=2.0)
    return bool(after["alerts"]) and after["title"] == visit.title
