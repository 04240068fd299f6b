"""The scout: reads a whole site once in the real browser, all pages and all branches, into one observation.

Within a page every option of every choice control is tried and what appears is noted. For what a page shows because of
an answer on an earlier page the site is walked several times, with answers that together give every option once (a
covering design); which answer decides then follows from where the control was there and where it was not, and one more
walk settles what is still open.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from dllm_rl.errors import HarnessError
from dllm_rl.records.tasks import Condition, Observation
from harness.browser import Tab
from harness.scout.walk import CHOICES, Answers, Key, Seen, Sight, Visit, walk

Walk = tuple[Visit, ...]


class CannotTellError(HarnessError):
    """Which answer on an earlier page shows a control cannot be told, however the pages are walked."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One possible answer on a page (0-based number), as the deciding control and the value of its Condition."""

    page: int
    decider: Key
    value: str

    def is_given(self, visits: Walk) -> bool:
        """Whether this walk gave it."""
        values = visits[self.page].answers.get(self.decider.field, ())
        if self.decider.kind == "checkbox":
            is_ticked = "on" in values or self.decider.name in values
            return is_ticked == (self.value == "checked")
        return self.value in values


async def scout(
    tab: Tab,
    new_start_url: Callable[[], str],
    answers: Answers,
    files: Mapping[str, bytes] = MappingProxyType({}),
    is_injected: Callable[[], bool] = lambda: False,
) -> Observation:
    """Observe a site.

    Args:
        tab: The tab to walk in.
        new_start_url: Returns an address at which the site is untouched.
        answers: Values by field name that get past every page.
        files: Contents of files by name, for file fields.
        is_injected: As for `Tab.loaded`.
    """
    walk_with = functools.partial(walk, tab, files=files, is_injected=is_injected)
    return await Explorer(walk_with=walk_with, new_start_url=new_start_url, answers=answers).page()


@dataclass(slots=True, kw_only=True)
class Explorer:
    """Finds all controls of a site, and which answers show them, with walks as `walk` makes them."""

    walk_with: Callable[..., Awaitable[Walk]]
    new_start_url: Callable[[], str]
    answers: Answers
    walks: list[Walk] = field(default_factory=list)

    async def page(self) -> Observation:
        """Walk as often as it takes. Raises CannotTellError where no answer can be told to show a control."""
        base = await self.walk_with(self.new_start_url(), self.answers)
        if not base:
            raise HarnessError("the scout found no control on the first page of the site.")
        self.walks.append(base)
        if len(base) > 1:
            await self._cover(len(base))
        pages = [await self._union(number) for number in range(len(base))]
        return _number(pages, [visit.title for visit in base])

    async def first_walk(self) -> Observation:
        """What the first walk saw alone; after `page`."""
        base, self.walks = self.walks[0], self.walks[:1]
        pages = [await self._union(number) for number in range(len(base))]
        return _number(pages, [visit.title for visit in base])

    async def _walk(self, changes: Answers, num_pages: int) -> Walk:
        answers = {**self.answers, **changes}
        visits = await self.walk_with(self.new_start_url(), answers, num_pages=num_pages)
        self.walks.append(visits)
        return visits

    async def _cover(self, num_pages: int) -> None:
        """Give every answer of every page but the last once; an answer that a walk could not carry on gets its own."""
        choices = self._choices(num_pages - 1)
        for turn in range(max((len(values) for values in choices.values()), default=0)):
            await self._walk({name: values[turn % len(values)] for name, values in choices.items()}, num_pages)
        for name, values in self._choices(num_pages - 1).items():
            for value in values:
                if not any(len(visits) == num_pages and _gave(visits, name, value) for visits in self.walks):
                    await self._walk({name: value}, num_pages)

    def _choices(self, num_pages: int) -> dict[str, list[tuple[str, ...]]]:
        """Possible answers of each choice field seen so far, one option at a time, in reading order."""
        choices: dict[str, list[tuple[str, ...]]] = {}
        for seen in self._all_seen(range(num_pages)):
            if seen.kind in CHOICES:
                values = choices.setdefault(seen.field, [])
                values += [value for value in _answers_of(seen) if value not in values]
        return choices

    def _all_seen(self, numbers: Iterable[int]) -> Iterable[Seen]:
        for number in numbers:
            for visits in self.walks:
                for sight in visits[number].sights if number < len(visits) else ():
                    yield from sight.controls

    async def _union(self, number: int) -> _Union:
        """All controls of one page: those always there, those of branches by their answers, those revealed in it."""
        visits = [walked[number] for walked in self.walks if number < len(walked)]
        is_always = set.intersection(*({seen.key for seen in visit.controls} for visit in visits))
        union = _Union(number=number)
        for visit in visits:
            union.insert([seen for seen in visit.controls if seen.key in is_always], None)
        branches = {seen.key: seen for visit in visits for seen in visit.controls if seen.key not in is_always}
        reasons = [(await self._reason(number, key), key) for key in branches]
        for reason, key in sorted(reasons, key=lambda item: self._rank(item[0])):
            visit = next(item for item in visits if key in {seen.key for seen in item.controls})
            union.insert([seen for seen in visit.controls if seen.key == key or seen.key in union.keys], reason)
        for visit in visits:
            for sight in visit.sights[1:]:
                union.insert(sight.controls, _answer_in_page(number, sight))
        return union

    def _rank(self, reason: Answer) -> tuple[int, int]:
        """Reading order of the answer: page, then place of the option among all that were seen."""
        places = [place for place, candidate in enumerate(self._candidates(reason.page + 1)) if candidate == reason]
        return reason.page, places[0]

    def _candidates(self, num_pages: int) -> list[Answer]:
        found: dict[Answer, None] = {}
        for number in range(num_pages):
            for seen in self._all_seen([number]):
                for value in _condition_values(seen):
                    found[Answer(page=number, decider=seen.key, value=value)] = None
        return list(found)

    async def _reason(self, number: int, key: Key) -> Answer:
        """The answer on an earlier page that makes this control appear."""
        while True:
            known = [visits for visits in self.walks if number < len(visits)]
            is_there = [key in {seen.key for seen in visits[number].controls} for visits in known]
            fitting = [
                answer
                for answer in self._candidates(number)
                if all(answer.is_given(visits) == there for visits, there in zip(known, is_there, strict=True))
            ]
            if len(fitting) == 1:
                return fitting[0]
            if not fitting:
                raise CannotTellError(f"the scout cannot tell which answer shows '{key.field}' on page {number + 1}.")
            await self._settle(fitting, number)

    async def _settle(self, fitting: Sequence[Answer], number: int) -> None:
        """Separate answers that have always come together: give one of them and none of the others."""
        for chosen in fitting:
            changes = {other.decider.field: self._another(other) for other in fitting}
            visits = await self._walk({**changes, chosen.decider.field: _answer_values(chosen)}, number + 1)
            if len(visits) > number and len({answer.is_given(visits) for answer in fitting}) > 1:
                return
        raise CannotTellError(
            f"the scout cannot tell which of these answers matters: {', '.join(answer.value for answer in fitting)}."
        )

    def _another(self, answer: Answer) -> tuple[str, ...]:
        """Any other answer to the same question; none where it has no other."""
        values = self._choices(answer.page + 1)[answer.decider.field]
        return next((value for value in values if value != _answer_values(answer)), ())


def _gave(visits: Walk, name: str, value: tuple[str, ...]) -> bool:
    return any(visit.answers.get(name) == value for visit in visits)


def _answers_of(seen: Seen) -> list[tuple[str, ...]]:
    if seen.kind in ("select", "multiselect"):
        return [(option,) for option in seen.options]
    if seen.kind == "radio" or seen.group:
        return [(seen.name,)]
    return [(), ("on",)]


def _condition_values(seen: Seen) -> tuple[str, ...]:
    if seen.kind in ("select", "multiselect"):
        return seen.options
    if seen.kind == "radio":
        return (seen.name,)
    return ("checked", "unchecked") if seen.kind == "checkbox" else ()


def _answer_values(answer: Answer) -> tuple[str, ...]:
    if answer.decider.kind == "checkbox":
        return ("on", answer.decider.name) if answer.value == "checked" else ()
    return (answer.value,)


def _answer_in_page(number: int, sight: Sight) -> Answer:
    assert sight.decider is not None
    return Answer(page=number, decider=sight.decider, value=sight.value)


@dataclass(slots=True, kw_only=True)
class _Union:
    """Controls of a page in one reading order, each with the answer that makes it appear."""

    number: int
    keys: list[Key] = field(default_factory=list)
    seen: dict[Key, Seen] = field(default_factory=dict)
    reasons: dict[Key, Answer | None] = field(default_factory=dict)

    def insert(self, controls: Sequence[Seen], reason: Answer | None) -> None:
        """Add what is new, directly before the next control that is already known."""
        at = len(self.keys)
        for seen in reversed(controls):
            if seen.key in self.seen:
                at = self.keys.index(seen.key)
                self._offer(seen)
            else:
                self.keys.insert(at, seen.key)
                self.seen[seen.key] = seen
                self.reasons[seen.key] = reason

    def _offer(self, seen: Seen) -> None:
        """Add the options that a list offers only now."""
        known = self.seen[seen.key]
        more = tuple(option for option in seen.options if option not in known.options)
        if more:
            self.seen[seen.key] = replace(known, options=known.options + more)


def _number(unions: Sequence[_Union], titles: Sequence[str]) -> Observation:
    """Give every control its ref and turn reasons into conditions on refs."""
    refs = {
        (union.number, key): f"p{union.number + 1}.e{at}"
        for union in unions
        for at, key in enumerate(union.keys, start=1)
    }
    controls = []
    for union in unions:
        for key in union.keys:
            reason = union.reasons[key]
            condition = Condition(ref=refs[reason.page, reason.decider], value=reason.value) if reason else None
            controls.append(union.seen[key].control(refs[union.number, key], condition))
    return Observation(titles=tuple(titles), controls=tuple(controls))
