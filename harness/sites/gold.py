"""The oracle: the plan that does what a task asks for, in reading order, and the plan that does nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from dllm_rl.records.plan import Action, render_plan
from dllm_rl.records.tasks import Control, GoldField, Page, Task
from harness.sites.factory import make_site
from harness.sites.schema import DISMISS, TICKED

_TYPED = frozenset({"text", "email", "tel", "number", "date", "textarea"})


def empty_plan() -> str:
    """The plan without actions."""
    return ""


def gold_plan(task: Task, page: Page) -> str:
    """Write the gold values in reading order; each page's button is `next`, the last one `submit`.

    What covers the page is closed first, parts that hold a gold field are opened, and where the site refuses a number
    of times (`Behaviour.num_refusals`), the form is sent again as often.
    """
    gold = {item.name: item for item in task.gold}
    needed = _openers(page, gold)
    actions: list[Action] = []
    for control in page.controls:
        if control.kind == "button" and not control.field:
            is_last = control.page_number == len(page.titles)
            actions.append(Action(verb="submit" if is_last else "next", ref=control.ref))
        elif control.kind == "button":
            if control.ref in needed:
                actions.append(Action(verb="click", ref=control.ref))
        elif control.field in gold:
            actions += actions_of(control, gold[control.field], page)
    return render_plan((*actions, *actions[-1:] * make_site(task.site).behaviour.num_refusals))


def _openers(page: Page, gold: Collection[str]) -> set[str]:
    """Refs of the buttons that must be clicked: the first of each obstacle, and those that open what holds gold."""
    closing = {control.field: control.ref for control in reversed(page.controls) if control.field.startswith(DISMISS)}
    needed = set(closing.values())
    for control in page.controls:
        opened: Control | None = control if control.field in gold else None
        while opened is not None and opened.condition is not None:
            opened = page.control(opened.condition.ref)
            if opened is not None and opened.kind == "button":
                needed.add(opened.ref)
    return needed


def actions_of(control: Control, gold: GoldField, page: Page) -> Iterator[Action]:
    """What brings one control to its gold value; nothing where it holds it already."""
    if control.kind in _TYPED:
        yield from (Action(verb="fill", ref=control.ref, value=value) for value in gold.wanted[:1])
    elif control.kind in ("select", "multiselect"):
        for option in control.options:
            if option in gold.wanted:
                yield Action(verb="select", ref=control.ref, value=option)
    elif control.kind == "radio":
        if control.name in gold.wanted:
            yield Action(verb="choose", ref=control.ref)
    elif control.kind == "file":
        yield from (Action(verb="upload", ref=control.ref, value=name) for name in gold.wanted)
    else:
        yield from _boxes(control, gold, page)


def _boxes(control: Control, gold: GoldField, page: Page) -> Iterator[Action]:
    """Only boxes whose state must change are touched. A box among several of one name is told by its own."""
    is_group = sum(other.kind == "checkbox" and other.field == control.field for other in page.controls) > 1
    is_wanted = (control.name if is_group else TICKED) in gold.wanted
    if is_wanted != (control.value == "checked"):
        yield Action(verb="check" if is_wanted else "uncheck", ref=control.ref)
