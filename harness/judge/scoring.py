"""A cheap score of a plan without a browser: how much of the gold it would give, and whether it hands the form in.

Steps of a denoising trajectory are scored with it, thousands of times; what counts in the end is the browser's outcome.
"""

from __future__ import annotations

from collections.abc import Mapping

from dllm_rl.records.plan import VERBS_BY_KIND, Action, parse_plan
from dllm_rl.records.tasks import Control, Observation, Task
from harness.judge.outcome import Values, are_equal

FIELD_SHARE = 0.8


def score_plan(task: Task, page: Observation, defaults: Mapping[str, Values], plan: str) -> float:
    """Score in [0, 1]: .8 x right gold fields + .2 where the last page's button is pressed. The gold plan is 1.

    Fields that the plan changes without being asked to cost like wrong ones. Without one right change it is 0.
    """
    values = {name: list(given) for name, given in defaults.items()}
    controls = {control.ref: control for control in page.controls}
    # Buttons with a name open or close a part of the page; that of the form has none.
    buttons = [item for item in page.controls if item.kind == "button" and not item.field]
    submit_refs = {item.ref for item in buttons if item.page_number == len(page.titles)}
    is_submitted = False
    for action in parse_plan(plan).actions:
        control = controls.get(action.ref)
        if control is None or action.verb not in VERBS_BY_KIND[control.kind] or is_submitted:
            continue
        is_submitted = action.ref in submit_refs
        _apply(action, control, values)
    return _score(task, defaults, {name: tuple(given) for name, given in values.items()}, is_submitted)


def _score(task: Task, defaults: Mapping[str, Values], values: Mapping[str, Values], is_submitted: bool) -> float:
    right = counted = 0
    for gold in task.gold:
        is_right = are_equal(gold.kind, gold.wanted, values.get(gold.name, ()))
        is_default = are_equal(gold.kind, gold.wanted, defaults.get(gold.name, ()))
        counted += not (is_default and is_right)
        right += is_right and not is_default
    gold_names = {gold.name for gold in task.gold}
    num_spoilt = sum(
        set(given) != set(defaults.get(name, ())) for name, given in values.items() if name not in gold_names
    )
    if not right:
        return 0.0
    accuracy = right / (counted + num_spoilt)
    return 1.0 if accuracy == 1.0 and is_submitted else FIELD_SHARE * accuracy + (1 - FIELD_SHARE) * is_submitted


def _apply(action: Action, control: Control, values: dict[str, list[str]]) -> None:
    value = action.value or ""
    if action.verb == "fill":
        values[control.field] = [value] if value else []
    elif action.verb == "clear":
        values[control.field] = []
    elif action.verb == "select":
        if value in control.options:
            before = values.get(control.field, []) if control.kind == "multiselect" else []
            values[control.field] = [*before, *([value] if value not in before else [])]
    elif action.verb == "upload":
        values[control.field] = [value]
    elif action.verb in ("choose", "check", "uncheck", "click"):
        _tick(action, control, values)


def _tick(action: Action, control: Control, values: dict[str, list[str]]) -> None:
    if control.kind == "radio":
        values[control.field] = [control.name]
    elif control.kind == "checkbox":
        mark, before = control.name if control.group else "on", values.get(control.field, [])
        is_wanted = action.verb == "check" or (action.verb == "click" and mark not in before)
        values[control.field] = [*(item for item in before if item != mark), *([mark] if is_wanted else [])]
