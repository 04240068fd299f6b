"""The plan that does what a task on pages that are not ours asks for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection

from dllm_rl.records.plan import Action, render_plan
from dllm_rl.records.tasks import Control, GoldField, Task
from harness.environments.recorded.gold import own_part
from harness.environments.recorded.observed import Observed
from harness.environments.recorded.written import TYPED
from harness.recorder import folded
from harness.sites.oracle import actions_of

_NO_SUBMIT = frozenset({"reset", "clear", "cancel", "back", "previous", "close", "clear form", "reset form"})


def oracle_plan(task: Task, seen: Observed) -> str:
    """Give every wanted value, page by page, each after the clicks that bring its control, and send the form."""
    page = seen.page
    gold = {item.name: item for item in task.gold}
    actions: list[Action] = []
    for number in range(1, len(page.titles) + 1):
        done: Counter[str] = Counter()
        own = [item for item in page.controls if item.page_number == number]
        # What more clicks bring comes later; within one state, reading order.
        for control in sorted(own, key=lambda item: len(seen.opening(item))):
            if control.field not in gold or control.kind in ("button", "link"):
                continue
            wanted = own_part(gold[control.field], control)
            given = _picked(control, wanted, seen) or list(actions_of(control, wanted, page))
            if given:
                actions += _opening(seen.opening(control), done)
                actions += given
        last = _button(own, seen, gold)
        if last is not None:
            actions += _opening(seen.opening(last), done)
            verb = "submit" if number == len(page.titles) else "next"
            actions.append(Action(verb=verb, ref=last.ref))
    return render_plan(tuple(actions))


def _picked(control: Control, gold: GoldField, seen: Observed) -> list[Action]:
    """A value that is taken from what a click on the field opens, such as a day of a calendar."""
    if control.kind not in TYPED or not gold.wanted:
        return []
    value = gold.wanted[0]
    spellings = [value, value[8:10].lstrip("0")] if _ISO_DAY.fullmatch(value) else [value]
    opened = [item for item in seen.page.controls if seen.opening(item) == (control.ref,)]
    found = next((item for name in spellings for item in opened if item.name == name), None)
    if found is None:
        return []
    return [Action(verb="click", ref=control.ref), Action(verb="click", ref=found.ref)]


_ISO_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def _opening(row: tuple[str, ...], done: Counter[str]) -> list[Action]:
    """The clicks of a row that were not made yet."""
    wanted, actions = Counter[str](), []
    for ref in row:
        wanted[ref] += 1
        if wanted[ref] > done[ref]:
            done[ref] += 1
            actions.append(Action(verb="click", ref=ref))
    return actions


def _button(controls: list[Control], seen: Observed, wanted: Collection[str]) -> Control | None:
    """The button that hands a page in: that of the form with most of the wanted fields, else the last one."""
    buttons = [item for item in controls if item.kind == "button" and folded(item.name) not in _NO_SUBMIT]
    senders = [item for item in buttons if item.ref in seen.senders]
    if senders:
        # A button with a name does something else beside handing the page in, such as keeping a draft of it.
        return max(senders, key=lambda item: (len(seen.senders[item.ref] & set(wanted)), not item.field))
    openers = {ref for item in controls for ref in seen.opening(item)}
    others = [item for item in buttons if item.ref not in openers] or buttons
    return others[-1] if others else None
