"""The proof that needs no model: in the browser each task's gold plan scores exactly 1 and its empty plan 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dllm_rl.records.tasks import SPLITS, Outcome, Task
from dllm_rl.session import Session
from harness.browser import Isolation
from harness.environments import FormEnvironment
from harness.execute import ExecutorName
from harness.rewards import Shaped, Success


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One task with its two rewards. reason: why the gold plan did not succeed, "" where it did."""

    task: Task
    plan: str
    gold: float
    empty: float
    reason: str = ""

    @property
    def holds(self) -> bool:
        """Gold is exactly 1 and empty exactly 0."""
        return self.gold == 1.0 and self.empty == 0.0


def prove(
    session: Session[FormEnvironment],
    splits: Sequence[str] = SPLITS,
    *,
    max_tasks: int | None = None,
    isolation: Isolation = "context",
    executor: ExecutorName = "trusted",
) -> tuple[Proof, ...]:
    """Run both plans of the first `max_tasks` tasks of each split."""
    tasks = [task for split in splits for task in session.tasks(split)[:max_tasks]]
    gold = [(task, session.gold_plan(task)) for task in tasks]
    pairs = [*gold, *((task, "") for task in tasks)]
    outcomes = session.run_many(pairs, isolation=isolation, executor=executor)
    both = zip(gold, outcomes[: len(tasks)], outcomes[len(tasks) :], strict=True)
    return tuple(_proof(task, plan, full, empty) for (task, plan), full, empty in both)


def _proof(task: Task, plan: str, full: Outcome, empty: Outcome) -> Proof:
    """Both rewards must agree, the 0/1 one and the shaped one; the worse of the two is kept."""
    gold = min(Shaped()(full), Success()(full))
    nothing = max(Shaped()(empty), Success()(empty))
    reason = "" if gold == 1.0 else full.fault_reason or "; ".join(full.validity_errors) or "a field is not as wanted"
    return Proof(task=task, plan=plan, gold=gold, empty=nothing, reason=reason)
