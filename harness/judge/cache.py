"""A cache of outcomes by task and plan, audited: a sample of the reused outcomes is executed again.

A policy that concentrates writes the same plan many times. Sites, plans and judging are deterministic, so a second
execution adds nothing. The audit checks this: the first reuse and then one in `every` is executed, and a different
outcome is a bug of ours that stops the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from dllm_rl.errors import HarnessError
from dllm_rl.records.plan import Plan
from dllm_rl.records.tasks import Outcome, Task


@dataclass(frozen=True, slots=True)
class Key:
    """What decides an outcome. The plan is parsed: texts that differ in blanks at line ends share an outcome."""

    site_version: str
    task: Task
    plan: Plan
    executor: str


@dataclass(slots=True)
class Audit:
    """Counts over all calls of a run: reused outcomes, and how many of those were executed to compare."""

    every: int
    num_reused: int = 0
    num_executed: int = 0

    def is_due(self) -> bool:
        """Count one reuse, and return whether it must be executed."""
        self.num_reused += 1
        return self.num_reused % self.every == 1 % self.every


class OutcomeCache:
    """Outcomes by key, in memory. What the environment lost or a deadline decided is never kept."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit
        self._outcomes: dict[Key, Outcome] = {}
        self._turns: dict[Key, asyncio.Lock] = {}

    async def get(self, key: Key, run: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """The outcome of a key, from `run` the first time. Raises HarnessError where an audit finds a difference."""
        async with self._turns.setdefault(key, asyncio.Lock()):
            known = self._outcomes.get(key)
            if known is None:
                outcome = await run()
                if _is_decided_by_plan(outcome):
                    self._outcomes[key] = outcome
                return outcome
        if self.audit.is_due():
            self.audit.num_executed += 1
            again = await run()
            if _is_decided_by_plan(again) and _facts(again) != _facts(known):
                raise HarnessError(
                    f"task {key.task.id}: one plan had two outcomes: {_facts(known)} and {_facts(again)}"
                )
        return replace(known, seconds={})


def _facts(outcome: Outcome) -> Outcome:
    return replace(outcome, seconds={}, num_attempts=1, recheck="")


def _is_decided_by_plan(outcome: Outcome) -> bool:
    return outcome.is_valid and not any(item.note.startswith("deadline passed") for item in outcome.actions)
