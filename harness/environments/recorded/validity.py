"""What the browser itself would not send: values against the rules in the attributes of a field, which it is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from dllm_rl.records.tasks import Task
from harness.browser import Tab
from harness.environments.recorded.gold import own_part
from harness.environments.recorded.observed import Observed

SECONDS = 5.0
# By field and value, what the field says against it, or "". A browser checks lengths only of what is typed, so they are
# compared by hand.
ASK = r"""(pairs) => pairs.map(([html, value]) => {
  const place = document.createElement("template");
  place.innerHTML = html;
  const field = place.content.firstElementChild;
  field.value = value;
  const { type, maxLength, minLength, validity } = field;
  const shown = (name) => field.getAttribute(name);
  if (maxLength >= 0 && value.length > maxLength) return `longer than ${maxLength} characters`;
  if (minLength >= 0 && value && value.length < minLength) return `shorter than ${minLength} characters`;
  if (field.value !== value) return `not what a field of type ${type} holds`;
  if (validity.patternMismatch) return `not of the pattern ${shown("pattern")}`;
  if (validity.typeMismatch) return `not what the browser takes for type ${type}`;
  if (validity.rangeUnderflow) return `below ${shown("min")}`;
  if (validity.rangeOverflow) return `above ${shown("max")}`;
  if (validity.stepMismatch) return `between the steps of ${shown("step") ?? 1}`;
  return "";
})"""


def written(task: Task, seen: Observed) -> Iterator[tuple[str, str, str]]:
    """Of what a task types: the gold label, the field's tag, and the value."""
    gold = {item.name: item for item in task.gold}
    for control in seen.page.controls:
        if control.field in gold and control.ref in seen.rules:
            part = own_part(gold[control.field], control)
            for value in part.wanted:
                yield part.label, seen.rules[control.ref], value


async def refusals(tab: Tab, tasks: Iterable[tuple[Task, Observed]]) -> dict[str, str]:
    """By task, why the browser would not send what it wants: of the first value that it refuses, label and reason."""
    typed = [(task.id, *item) for task, seen in tasks for item in written(task, seen)]
    pairs = list(dict.fromkeys((tag, value) for _, _, tag, value in typed))
    said: Any = await tab.within(tab.page.evaluate(ASK, [list(pair) for pair in pairs]), SECONDS, is_action=False)
    reasons = dict(zip(pairs, said, strict=True))
    found: dict[str, str] = {}
    for task_id, label, tag, value in typed:
        if reasons[tag, value]:
            found.setdefault(task_id, f"{label}: {reasons[tag, value]}")
    return found
