"""What an executor is: it runs the steps of a plan on the document that stands there, until that document is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from harness.browser import Tab
from harness.execute.steps import Step

ExecutorName = Literal["fast", "trusted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What happened to the first `len(results)` steps, and how the page stands now.

    results: one note record a step, as `feedback.sentence` reads it. here: number of the scouted page, 0 for none.
    values: visible form data by field name. alerts: texts that the page announces.
    """

    results: tuple[dict[str, Any], ...]
    here: int
    title: str
    is_leaving: bool
    values: dict[str, list[str]] = field(default_factory=dict)
    alerts: tuple[str, ...] = ()

    @classmethod
    def read(cls, record: dict[str, Any], results: Sequence[dict[str, Any]] = ()) -> Report:
        """Read the record of the page's script."""
        return cls(
            results=tuple(results),
            here=record["here"],
            title=record["title"],
            is_leaving=record["isLeaving"],
            values=record["values"],
            alerts=tuple(record["alerts"]),
        )


class Executor(Protocol):
    """Both executors keep one semantics (see `rollout.execute`); they differ in where the events come from."""

    name: ExecutorName

    async def perform(self, tab: Tab, steps: Sequence[Step], pages: list[dict[str, Any]]) -> Report:
        """Run steps in order until one makes the page leave; at least one step is consumed."""
        ...


async def look(tab: Tab, pages: list[dict[str, Any]]) -> Report:
    """How the page stands, without doing anything."""
    return Report.read(await tab.call("look", pages, seconds=2.0))
