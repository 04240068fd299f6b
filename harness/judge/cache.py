"""A cache of outcomes by task and plan, audited: a sample of the reused outcomes is executed again.

A policy that concentrates writes the same plan many times, and so do policies that started from the same weights.
Sites, plans and judging are deterministic, so a second execution adds nothing. The audit checks this: the first reuse
and then one in `every` is executed. A different outcome is a bug of ours: it drops what was kept and stops the unit.
Where a deadline or a recheck shows that the plan alone does not decide, the new outcome is given and counts as a
disagreement, and the one that was kept is dropped.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace

from dllm_rl.errors import HarnessError
from dllm_rl.records.plan import Plan
from dllm_rl.records.tasks import Outcome, Task
from harness.judge.store import OutcomeStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What decides an outcome.

    Attributes:
        made_by: The environment, the harness and the browser, by their versions or digests.
        task: The task.
        plan: The parsed plan: texts that differ in blanks at line ends share an outcome.
        executor: Name of the executor.
        isolation: Name of the isolation mode.
    """

    made_by: tuple[str, ...]
    task: Task
    plan: Plan
    executor: str
    isolation: str

    @property
    def digest(self) -> str:
        """Hash of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


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
    """Outcomes by key, without those that the environment lost, a deadline decided or a recheck contradicted.

    Args:
        audit: Decides which reused outcomes are executed again.
        store: Where outcomes are kept; None for memory.
        is_kept: Which of the others are kept; by default all.
    """

    def __init__(
        self,
        audit: Audit,
        store: OutcomeStore | None = None,
        *,
        is_kept: Callable[[Outcome], bool] = lambda outcome: True,
    ) -> None:
        self.audit = audit
        self.store = store or OutcomeStore()
        self._is_kept = is_kept
        self._turns: dict[str, asyncio.Lock] = {}

    async def get(self, key: Key, run: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """The outcome of a key, from `run` the first time.

        Raises HarnessError where an audit finds another outcome that the plan alone decided.
        """
        digest = key.digest
        async with self._turns.setdefault(digest, asyncio.Lock()):
            known = self.store.get(digest)
            if known is None:
                outcome = await run()
                if _is_decided_by_plan(outcome) and self._is_kept(outcome):
                    self.store.put(digest, outcome)
                return outcome
        if self.audit.is_due():
            self.audit.num_executed += 1
            again = await run()
            if again.is_valid and (again.recheck == "different" or _facts(again) != _facts(known)):
                return self._disagreed(key, known, again)
        return _reused(known)

    def _disagreed(self, key: Key, known: Outcome, again: Outcome) -> Outcome:
        """What an audit gives where it finds a difference. Raises HarnessError where that is our bug."""
        if not _is_decided_by_plan(again):
            # A deadline, or a recheck: chance on the page. It counts where other disagreements do.
            self.store.drop(key.digest)
            return replace(again, recheck="different")
        self.store.clear()
        raise HarnessError(
            f"task {key.task.id}: one plan had two outcomes: {_facts(known)} and {_facts(again)}. The outcomes that "
            "were kept are dropped. This is a bug of the harness: please report it. Units that finished before may "
            "have used the wrong one; delete their folders to run them again."
        )


def _reused(outcome: Outcome) -> Outcome:
    """The outcome for a rollout that was not executed: without timings, and with no recheck, which counts once."""
    return replace(outcome, seconds={}, recheck="", is_reused=True)


def _facts(outcome: Outcome) -> Outcome:
    return replace(outcome, seconds={}, num_attempts=1, recheck="")


def _is_decided_by_plan(outcome: Outcome) -> bool:
    if not outcome.is_valid or outcome.recheck == "different":
        return False
    return not any(item.note.startswith("deadline passed") for item in outcome.actions)
