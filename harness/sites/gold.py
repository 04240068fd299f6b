"""The oracle: the plan that does what a task asks for, in reading order, and the plan that does nothing."""

from __future__ import annotations

from collections.abc import Iterator

from dllm_rl.plan import Action, render_plan
from dllm_rl.tasks import Control, GoldField, Page, Task
from harness.sites.schema import TICKED

_TYPED = frozenset({"text", "email", "tel", "number", "date", "textarea"})


def empty_plan() -> str:
    """The plan without actions."""
    return ""


def gold_plan(task: Task, page: Page) -> str:
    """Write the gold values in reading order; each page's button is `next`, the last one `submit`."""
    gold = {item.name: item for item in task.gold}
    actions: list[Action] = []
    for control in page.controls:
        if control.kind == "button":
            is_last = control.page_number == len(page.titles)
            actions.append(Action(verb="submit" if is_last else "next", ref=control.ref))
        elif control.field in gold:
            actions += _actions(control, gold[control.field])
    return render_plan(tuple(actions))


def _actions(control: Control, gold: GoldField) -> Iterator[Action]:
    if control.kind in _TYPED:
        yield Action(verb="fill", ref=control.ref, value=gold.wanted[0])
    elif control.kind in ("select", "multiselect"):
        for option in control.options:
            if option in gold.wanted:
                yield Action(verb="select", ref=control.ref, value=option)
    elif control.kind == "radio":
        if control.name in gold.wanted:
            yield Action(verb="choose", ref=control.ref)
    else:
        yield from _boxes(control, gold)


def _boxes(control: Control, gold: GoldField) -> Iterator[Action]:
    """Only boxes whose state must change are touched."""
    is_wanted = (control.name if control.group else TICKED) in gold.wanted
    if is_wanted != (control.value == "checked"):
        yield Action(verb="check" if is_wanted else "uncheck", ref=control.ref)
