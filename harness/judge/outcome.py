"""From what the server received and the browser showed to an outcome. The payload is the truth; words are not read.

Values are compared by meaning: dates and numbers by value, several choices as a set, text trimmed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from dllm_rl.records.plan import Plan
from dllm_rl.records.tasks import ControlKind, Fault, FieldResult, GoldField, Observation, Outcome, Task
from harness.execute import Execution

Values = tuple[str, ...]


def normalised(values: Iterable[str]) -> Values:
    """Values without blanks around and double blanks inside, and without empty ones."""
    return tuple(text for value in values if (text := " ".join(value.split())))


def are_equal(kind: ControlKind, wanted: Values, got: Values) -> bool:
    """Whether these values mean the same for a control of this kind.

    Several values that are chosen have no order. Those of several boxes to type into, which share a field, do.
    """
    read = _READERS.get(kind, str)
    left, right = ([read(value) for value in normalised(values)] for values in (wanted, got))
    return left == right if kind in _TYPED else sorted(left, key=repr) == sorted(right, key=repr)


def _date(text: str) -> date | str:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return text


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


_READERS = {"date": _date, "number": _number}
_TYPED = frozenset({"text", "email", "tel", "number", "date", "textarea"})


class Received(Protocol):
    """One attempt to hand in a page or the whole form, as the server keeps it."""

    @property
    def accepted(self) -> bool:
        """The server took the whole form."""
        ...

    @property
    def fields(self) -> Mapping[str, Values]:
        """Values by field name, merged over pages, in visible texts."""
        ...

    @property
    def errors(self) -> Values:
        """Messages of the error page."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that one rollout left behind. `defaults` is what an untouched site sends, by field name."""

    task: Task
    page: Observation
    plan: Plan
    execution: Execution
    submissions: Sequence[Received]
    pages_reached: int
    defaults: Mapping[str, Values]


def judge(evidence: Evidence) -> Outcome:
    """Build the outcome of a rollout that the environment did not lose."""
    execution, submissions = evidence.execution, evidence.submissions
    accepted = next((item for item in submissions if item.accepted), None)
    rejected = [item for item in submissions if not item.accepted]
    server_errors = [message for item in rejected[-1:] if accepted is None for message in item.errors]
    reason = _agent_reason(execution)
    return Outcome(
        task_id=evidence.task.id,
        fault=Fault.AGENT if reason else Fault.NONE,
        fault_reason=reason,
        is_parsed=evidence.plan.is_parsed,
        is_submitted=accepted is not None,
        is_clean=accepted is None or _is_clean(evidence.task, accepted.fields, evidence.defaults),
        fields=tuple(_field_result(gold, evidence, accepted) for gold in evidence.task.gold),
        validity_errors=tuple(dict.fromkeys([*execution.validity_errors, *server_errors])),
        dialogs=execution.dialogs,
        actions=execution.actions,
        pages_reached=evidence.pages_reached,
        num_pages=len(evidence.page.titles),
        num_submissions=len(submissions),
        num_rejected=len(rejected),
        errors_by_rejection=tuple(len(item.errors) for item in rejected),
        seconds=execution.seconds,
    )


def lost(task: Task, page: Observation, reason: str, num_attempts: int) -> Outcome:
    """The outcome of a rollout that the environment lost: it has no reward and is masked."""
    return Outcome(
        task_id=task.id,
        fault=Fault.ENVIRONMENT,
        fault_reason=reason,
        num_pages=len(page.titles),
        num_attempts=num_attempts,
    )


def _field_result(gold: GoldField, evidence: Evidence, accepted: Received | None) -> FieldResult:
    server = normalised(accepted.fields.get(gold.name, ())) if accepted else None
    shown = evidence.execution.values.get(gold.name)
    dom = normalised(shown) if shown is not None else None
    default = evidence.defaults.get(gold.name, ())
    # A field on a page that was never reached stands at its default: nothing wanted there has been done.
    got = server if server is not None else dom if dom is not None else default
    return FieldResult(
        name=gold.name,
        wanted=gold.wanted,
        server=server,
        dom=dom,
        is_correct=are_equal(gold.kind, gold.wanted, got),
        is_default=are_equal(gold.kind, gold.wanted, default),
    )


def _is_clean(task: Task, fields: Mapping[str, Values], defaults: Mapping[str, Values]) -> bool:
    gold = {item.name for item in task.gold}
    others = (set(fields) | set(defaults)) - gold
    return all(
        sorted(normalised(fields.get(name, ()))) == sorted(normalised(defaults.get(name, ()))) for name in others
    )


def _agent_reason(execution: Execution) -> str:
    """The first line that did not do what it says, or the first complaint of the form."""
    failed = [item for item in execution.actions if item.status in ("failed", "malformed")]
    if failed:
        return f"line {failed[0].line}: {failed[0].note}"
    refused = [item for item in execution.actions if item.note.startswith("rejected: ")]
    return f"line {refused[0].line}: {refused[0].note}" if refused else ""
