"""The oracle of errands: what to do on the page as it is now, read from the errand's own records.

It sees what a policy sees: it writes refs of controls that stand in the window, and it learns that a value is refused
by reading so. Which values are wanted, it knows from the errand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

from dllm_rl.records.plan import Action, parse_turn, render_plan
from dllm_rl.records.rollout import Turn
from dllm_rl.records.tasks import Control, Observation
from harness.errands.schema import Entry, Errand, Page
from harness.sites.schema import TICKED

_DOWN = Action(verb="scroll", ref="", value="down")


def oracle_turn(errand: Errand, turns: Sequence[Turn], page: Observation, max_actions: int) -> str:
    """The next turn: at most so many actions, of which only the last may lead to another page."""
    here = errand.titled(page.title)
    if here is None:
        return render_plan((Action(verb="done", ref="", value=errand.answer or None),))
    seen = _seen(errand, turns)
    noted = {action.text for turn in turns for action in turn.outcome.actions}
    actions = list(_actions(errand, here, page, seen, noted))
    return render_plan(tuple(actions[:max_actions]))


def _seen(errand: Errand, turns: Sequence[Turn]) -> set[str]:
    """Keys of the pages that were left behind."""
    pages = (errand.titled(turn.observation.title) for turn in turns)
    return {page.key for page in pages if page is not None}


def _actions(errand: Errand, here: Page, page: Observation, seen: set[str], noted: set[str]) -> Iterator[Action]:
    """All that is to be done here, in order."""
    close = _named(page, "button", "Close")
    if close is not None:
        yield Action(verb="click", ref=close.ref)
    if errand.answer and here.key == errand.path[-1] and not here.button:
        yield Action(verb="done", ref="", value=errand.answer)
        return
    if here.remember:
        note = Action(verb="note", ref="", value=here.remember)
        if render_plan((note,)) not in noted:
            yield note
    if here.num_waits:
        yield Action(verb="wait", ref="")
    elif here.button and set(here.needs) <= {*seen, here.key}:
        yield from _hand_in(here, page)
    else:
        yield from _go_on(here, page, seen)


def _hand_in(here: Page, page: Observation) -> Iterator[Action]:
    """Give what is wanted and does not stand there yet, and press the button, which may have to be scrolled to."""
    for entry in here.entries:
        if entry.wanted is not None:
            yield from _give(entry, page)
    button = _named(page, "button", here.button)
    yield Action(verb="submit", ref=button.ref) if button is not None else _DOWN


def _give(entry: Entry, page: Observation) -> Iterator[Action]:
    is_refused = any(text.startswith(f"{entry.label}:") for text in page.errors)
    holds_wanted = any(item.field == entry.name and item.value == entry.wanted for item in page.controls)
    wanted = entry.wanted if entry.first_try is None or is_refused or holds_wanted else entry.first_try
    for control in page.controls:
        if control.field != entry.name:
            continue
        if control.kind == "radio":
            if control.name == wanted and not control.value:
                yield Action(verb="choose", ref=control.ref)
        elif control.kind == "checkbox":
            if (wanted == TICKED) != (control.value == "checked"):
                yield Action(verb="check" if wanted == TICKED else "uncheck", ref=control.ref)
        elif control.value != wanted:
            verb = "select" if control.kind == "select" else "fill"
            yield Action(verb=verb, ref=control.ref, value=wanted)


def _go_on(here: Page, page: Observation, seen: set[str]) -> Iterator[Action]:
    """Open the next page by its link, which may have to be scrolled to."""
    target = next((key for key in here.follow if key not in seen), here.follow[-1])
    words = next(item.text for item in here.links if item.to == target)
    link = _named(page, "link", words)
    yield Action(verb="click", ref=link.ref) if link is not None else _DOWN


def _named(page: Observation, kind: str, name: str) -> Control | None:
    return next((item for item in page.controls if item.kind == kind and item.name == name), None)


def slip(errand: Errand, page: Observation, plan: str, chance: Random) -> str | None:
    """A turn that goes wrong where the oracle's would not, and that a later turn can make good; None where none is.

    The page is handed in too early, or a field gets what another one should have.
    """
    here = errand.titled(page.title)
    actions = parse_turn(plan).actions
    found = []
    if here is not None and actions and actions[-1].verb == "submit" and _is_owed(here, page):
        found.append(actions[-1])
    texts = {control.ref for control in page.controls if control.kind == "text"}
    fills = [action for action in actions if action.verb == "fill" and action.ref in texts]
    found += [replace(one, value=other.value) for one in fills for other in fills if one.value != other.value]
    return render_plan((chance.choice(found),)) if found else None


def _is_owed(here: Page, page: Observation) -> bool:
    """Whether the server would refuse the page as it is, because something is missing."""
    empty = {control.field for control in page.controls if control.kind not in ("radio", "checkbox", "button", "link")}
    empty -= {control.field for control in page.controls if control.value}
    return any(entry.is_required and entry.name in empty for entry in here.entries)
