"""The scout on pages that are not ours: what it needs to know of them is found out by filling in and clicking.

A form is walked through with answers that the tasks give, page by page, as long as what was sent brings a page with
fields, or a button to confirm, that none before it had. On each page every choice is tried (`explorer.py`), and every
button that sends nothing is clicked on a page that was loaded anew, with what it reveals, and what that reveals.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dllm_rl.records.tasks import Control, Observation
from harness.browser import AgentLeftError, EnvironmentFaultError, Tab
from harness.execute import payloads
from harness.scout.explorer import CannotTellError, Explorer, Walk
from harness.scout.walk import EXPLORE_SECONDS, Answers, Key, Seen, Sight, Visit

MAX_PAGES = 12
# Loads of one survey that clicks may take, and clicks in a row.
MAX_LOADS = 60
MAX_CLICKS = 6
# How many of the buttons that a click shows are tried; the days of a calendar open nothing.
MAX_NEW = 4
_NO_FIELDS = frozenset({"button", "link"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """A form that is not ours.

    Attributes:
        page: Its observation.
        choices: Visible text by HTML value, by field.
        identities: Ids of controls, by field.
        defaults: What the untouched form shows, by field.
        clicks: By ref, the refs that must be clicked before the control is there.
        selected: By selector, the refs of what it means.
        senders: By ref of a button that sends a form, the fields of that form.
        rules: By ref of a control that is typed into, its tag, in whose attributes is what the browser accepts there.
    """

    page: Observation
    choices: Mapping[str, Mapping[str, str]]
    identities: Mapping[str, tuple[str, ...]]
    defaults: Mapping[str, tuple[str, ...]]
    clicks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    selected: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    senders: Mapping[str, frozenset[str]] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Survey:
    """One survey.

    Attributes:
        tab: The tab to walk in.
        new_start_url: Returns an address at which the form is untouched.
        answers: Values by field name that get past the pages; what is missing is left as it is.
        files: Contents of files by name, for file fields.
        selectors: What else to find.
        goes_on: Whether to hand a page in and see whether another follows.
        opens: Whether to see what clicks open.
        is_over: Whether what was sent has ended the form.
        put_back: Puts the site back to where it was, before the form is loaded anew.
    """

    tab: Tab
    new_start_url: Callable[[], str]
    answers: Answers
    files: Mapping[str, bytes]
    selectors: Sequence[str] = ()
    goes_on: bool = True
    opens: bool = True
    is_over: Callable[[], bool] = lambda: False
    put_back: Callable[[], Awaitable[None]] | None = None
    _num_loads: int = 0
    _opened: dict[int, tuple[Sight, ...]] = field(default_factory=dict)
    _clicks: dict[tuple[int, Key], tuple[Key, ...]] = field(default_factory=dict)
    _choices: dict[str, dict[str, str]] = field(default_factory=dict)
    _identities: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _defaults: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _selected: dict[str, dict[tuple[int, Key], None]] = field(default_factory=dict)
    _senders: dict[tuple[int, Key], frozenset[str]] = field(default_factory=dict)
    _rules: dict[tuple[int, Key], str] = field(default_factory=dict)

    async def run(self) -> Surveyed:
        """Walk, and put together what was seen."""
        explorer = Explorer(walk_with=self._walk, new_start_url=self.new_start_url, answers=self.answers)
        try:
            page = await explorer.page()
        except CannotTellError:
            # Which answer on an earlier page shows a control is more than some pages tell; their first walk remains.
            page = await explorer.first_walk()
        refs = {_place_of(control): control.ref for control in page.controls}
        return Surveyed(
            page=page,
            choices=self._choices,
            identities=self._identities,
            defaults=self._defaults,
            clicks={
                refs[at]: tuple(refs[at[0], key] for key in keys) for at, keys in self._clicks.items() if at in refs
            },
            senders={refs[at]: fields for at, fields in self._senders.items() if at in refs},
            rules={refs[at]: tag for at, tag in self._rules.items() if at in refs},
            selected={name: tuple(refs[at] for at in found if at in refs) for name, found in self._selected.items()},
        )

    async def _walk(self, start_url: str, answers: Answers, num_pages: int = MAX_PAGES) -> Walk:
        visits: list[Visit] = []
        await self._load(start_url)
        while len(visits) < num_pages:
            number = len(visits)
            title, sights = await self._look(number)
            if number and not _goes_on(visits, sights[0], confirms=await self.tab.call("confirms", seconds=2.0)):
                break
            if self.opens and number not in self._opened:
                num_loads = self._num_loads
                self._opened[number] = await self._click_around(number, sights, answers)
                sights = (*sights, *self._opened[number])
                if self._num_loads > num_loads:
                    await self._reach(number, answers)
            visits.append(Visit(title=title, sights=sights, answers={}))
            if len(visits) == num_pages or not self.goes_on:
                break
            left, given = await self._leave(number, answers)
            visits[-1] = Visit(title=title, sights=sights, answers=given)
            if not left or self.is_over():
                break
        return tuple(visits)

    async def _load(self, url: str) -> None:
        if self.put_back is not None:
            await self.put_back()
        await self.tab.goto(url)
        await self.tab.call("settled", seconds=5.0)

    async def _reach(self, number: int, answers: Answers) -> None:
        """Come to a page anew."""
        await self._load(self.new_start_url())
        for before in range(number):
            await self._leave(before, answers)

    async def _leave(self, number: int, answers: Answers) -> tuple[bool, Mapping[str, tuple[str, ...]]]:
        """Hand the page in. Returns whether another document came, and what was given."""
        await self.tab.call("fillIn", self._request(answers), seconds=8.0)
        await self._note(number)
        self.tab.expect_load()
        left = await self.tab.call("answer", self._request(answers), seconds=8.0)
        has_left = left["isLeaving"] and await self._comes()
        if has_left:
            await self.tab.call("settled", seconds=5.0)
        return has_left, {name: tuple(values) for name, values in left["values"].items()}

    async def _comes(self) -> bool:
        """Whether another document of the site comes; none does where a form or a button leads elsewhere."""
        try:
            return await self.tab.loaded(is_injected=lambda: True)
        except AgentLeftError:
            return False

    def _request(self, answers: Answers) -> dict[str, Any]:
        return {"answers": {name: list(values) for name, values in answers.items()}, "files": payloads(self.files)}

    async def _look(self, number: int) -> tuple[str, tuple[Sight, ...]]:
        """Title of the page, and what stands on it after each choice."""
        seen = await self.tab.call("look", [], seconds=2.0)
        for name, values in seen["values"].items():
            self._defaults.setdefault(name, tuple(values))
        await self._note(number)
        sights = tuple(map(Sight.read, await self.tab.call("explore", seconds=EXPLORE_SECONDS)))
        await self._note(number)
        return seen["title"], sights

    async def _note(self, number: int) -> None:
        """Take down what the present state tells about values, ids and selectors."""
        for name, texts in (await self.tab.call("choices", seconds=2.0)).items():
            self._choices.setdefault(name, {}).update(texts)
        for name, ids in (await self.tab.call("identities", seconds=2.0)).items():
            self._identities[name] = tuple(dict.fromkeys((*self._identities.get(name, ()), *ids)))
        for selector, records in (await self.tab.call("selected", list(self.selectors), seconds=2.0)).items():
            found = self._selected.setdefault(selector, {})
            found |= dict.fromkeys((number, Seen.read(record).key) for record in records)
        for sender in await self.tab.call("senders", seconds=2.0):
            self._senders[number, Seen.read(sender["button"]).key] = frozenset(sender["fields"])
        for rule in await self.tab.call("rules", seconds=2.0):
            self._rules[number, Seen.read(rule["control"]).key] = rule["html"]

    async def _click_around(self, number: int, sights: Sequence[Sight], answers: Answers) -> tuple[Sight, ...]:
        """What clicks reveal, each on a page that was loaded anew, from the shortest row of clicks to the longest."""
        known = {key for sight in sights for key in _keys(sight)}
        opened: list[Sight] = []
        rows: list[tuple[Key, ...]] = [()]
        for row in rows:
            if row:
                await self._follow(number, row, answers)
            openers = [Seen.read(record).key for record in await self.tab.call("openers", seconds=2.0)]
            if row:
                shown = [key for key in openers if self._clicks.get((number, key)) == row][:MAX_NEW]
                openers = [key for key in openers if key == row[-1] or key in shown]
            for opener in openers:
                if self._num_loads >= MAX_LOADS or len(row) >= MAX_CLICKS:
                    return tuple(opened)
                self._num_loads += 1
                after = await self._follow(number, (*row, opener), answers)
                new = {seen.key for seen in after} - known
                if new:
                    await self._note(number)
                    known |= new
                    self._clicks |= dict.fromkeys(((number, key) for key in new), (*row, opener))
                    opened.append(Sight(decider=opener, value="open", controls=after))
                    rows.append((*row, opener))
        return tuple(opened)

    async def _follow(self, number: int, row: Sequence[Key], answers: Answers) -> tuple[Seen, ...]:
        """What stands on a page, loaded anew, after these clicks; () where one of them has left it."""
        await self._reach(number, answers)
        seen: tuple[Seen, ...] = ()
        for key in row:
            self.tab.expect_load()
            opened = await self._open({**self._request(answers), "key": asdict(key)})
            if opened["isLeaving"]:
                await self._comes()
                return ()
            seen = tuple(map(Seen.read, opened["controls"]))
        return seen

    async def _open(self, request: dict[str, Any]) -> dict[str, Any]:
        """Click in the page. A document that is replaced meanwhile was left by the click."""
        try:
            return await self.tab.call("open", request, seconds=8.0)
        except EnvironmentFaultError as fault:
            if "context was destroyed" not in str(fault):
                raise
            return {"isLeaving": True}


def _goes_on(visits: Sequence[Visit], sight: Sight, *, confirms: bool) -> bool:
    """Whether a page belongs to the form: it has a field that none before it had, or such a button to confirm."""
    before = {key for visit in visits for other in visit.sights for key in _keys(other)}
    new = {key.kind for key in _keys(sight) if key not in before}
    return bool(new - _NO_FIELDS) or (confirms and "button" in new)


def _keys(sight: Sight) -> Iterator[Key]:
    return (seen.key for seen in sight.controls)


def _place_of(control: Control) -> tuple[int, Key]:
    seen = Seen(
        kind=control.kind, name=control.name, group="", options=(), required=False, disabled=False, value="",
        field=control.field, place=control.place,
    )  # fmt: skip
    return control.page_number - 1, seen.key
