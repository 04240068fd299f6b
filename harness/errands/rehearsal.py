"""An oracle's episode without a browser: for demonstrations, of which a warm start needs thousands.

It shows what the browser shows and answers what the browser answers, for what oracles do and on pages that fit into the
window; a test compares both. Everything that policies do is for the browser.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from dllm_rl.records.plan import Action, parse_turn, render_action
from dllm_rl.records.rollout import Completion, Turn
from dllm_rl.records.tasks import ActionResult, Control, Observation, Outcome, Passage, Task
from harness.errands.factory import make_errand
from harness.errands.oracle import oracle_turn, slip
from harness.errands.schema import Entry, Errand, Page
from harness.errands.visit import Values, View, Visit
from harness.execute.steps import sentence
from harness.sites.schema import TICKED

# More does not fit into the window for certain.
MAX_LINKS, MAX_ENTRIES = 11, 5
MAX_TURNS = 60


def fits(errand: Errand) -> bool:
    """Whether all of its pages fit into the window, whatever has been done."""
    return all(
        len(page.entries) <= MAX_ENTRIES and (len(page.links) <= MAX_LINKS or page.filtered_by) for page in errand.pages
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """Turns that solve a task.

    Attributes:
        slips: Numbers of the turns that went wrong on purpose, which nobody should imitate.
    """

    turns: tuple[Turn, ...]
    slips: frozenset[int]


def rehearse(task: Task, *, max_actions: int, chance: Random, detours: float) -> Rehearsal:
    """Let the oracle solve a task.

    Args:
        task: A task whose errand fits into the window.
        max_actions: Actions of one turn.
        chance: Decides where it slips.
        detours: Share of turns at which it slips, of those where it can.
    """
    errand = make_errand(task.site)
    stage = _Stage(errand=errand, visit=Visit.of(errand))
    stage.open(errand.pages[0])
    turns: list[Turn] = []
    slips: set[int] = set()
    while not stage.is_over and len(turns) < MAX_TURNS:
        page = stage.observation()
        plan = oracle_turn(errand, turns, page, max_actions)
        if chance.random() < detours and (other := slip(errand, page, plan, chance)) is not None:
            plan = other
            slips.add(len(turns))
        outcome = Outcome(task_id=task.id, actions=tuple(stage.turn(plan)))
        turns.append(Turn(observation=page, completion=Completion(plan=plan), outcome=outcome))
    assert stage.is_over, f"{task.id}: the oracle does not end"
    return Rehearsal(turns=tuple(turns), slips=frozenset(slips))


@dataclass(slots=True, kw_only=True)
class _Stage:
    """Where the errand's pages are played.

    Attributes:
        view: The page as the site answered it.
        values: What its fields hold now.
        is_covered: Whether its notice still covers it.
        numbers: Numbers of the pages by key.
        is_over: Whether the record was accepted, or the answer given.
    """

    errand: Errand
    visit: Visit
    view: View | None = None
    values: dict[str, Values] = field(default_factory=dict)
    is_covered: bool = False
    numbers: dict[str, int] = field(default_factory=dict)
    is_over: bool = False

    def open(self, page: Page) -> None:
        """Open a page, or the one that it leads to."""
        self._arrive(self.visit.show(page))

    def _arrive(self, answer: View | str) -> None:
        while isinstance(answer, str):
            if self.visit.is_accepted:
                self.is_over = True
                return
            page = self.errand.page(answer)
            assert page is not None
            answer = self.visit.show(page)
        self.view, self.values, self.is_covered = answer, dict(answer.answers), bool(answer.notice)
        self.numbers.setdefault(answer.page.key, len(self.numbers) + 1)

    @property
    def _shown(self) -> View:
        assert self.view is not None
        return self.view

    @property
    def _number(self) -> int:
        return self.numbers[self._shown.page.key]

    def observation(self) -> Observation:
        """The page as it is now, as the browser shows it."""
        view = self._shown
        controls: list[Control] = []
        passages = [Passage(text=text, before="1") for text in view.page.passages]
        for entry in view.page.entries if view.page.button else ():
            controls += self._controls(entry)
        if view.page.button:
            controls.append(Control(ref="", kind="button", name=view.page.button))
        for link in view.links:
            controls.append(Control(ref="", kind="link", name=link.text))
            if link.note:
                passages.append(Passage(text=link.note, before=str(len(controls) + 1)))
        if self.is_covered:
            controls.append(Control(ref="", kind="button", name="Close", field="close-notice"))
            passages.append(Passage(text=view.notice, before=str(len(controls))))
        head = f"p{self._number}.e"
        last = len(controls)
        return Observation(
            titles=(*[""] * (self._number - 1), view.page.title),
            controls=tuple(replace(control, ref=f"{head}{at}") for at, control in enumerate(controls, start=1)),
            passages=tuple(
                Passage(text=item.text, before=f"{head}{item.before}" if int(item.before) <= last else "")
                for item in passages
            ),
            errors=view.errors or ((view.announced,) if view.announced else ()),
        )

    def _controls(self, entry: Entry) -> Iterator[Control]:
        value = next(iter(self.values[entry.name]), "")
        if entry.kind == "radio":
            for option in entry.options:
                ticked = "checked" if option == value else ""
                yield Control(ref="", kind="radio", name=option, group=entry.label, value=ticked, field=entry.name)
            return
        yield Control(
            ref="",
            kind=entry.kind,
            name=entry.label,
            options=entry.options,
            value="checked" if value == TICKED and entry.kind == "checkbox" else value,
            field=entry.name,
        )

    def turn(self, plan: str) -> Iterator[ActionResult]:
        """Run the actions of a turn until the page changes."""
        page, stopped_at = self.observation(), 0
        for action in parse_turn(plan).actions:
            if stopped_at:
                result = {"status": "skipped", "note": "skipped", "line": stopped_at}
            else:
                result = self._act(action, page)
                has_moved = result["note"] in ("page", "rejected", "busy", "submitted", "done")
                stopped_at = action.line if has_moved or result["status"] != "ok" else 0
            yield ActionResult(
                line=action.line, text=render_action(action), status=result["status"], note=sentence(action, result)
            )

    def _act(self, action: Action, page: Observation) -> dict[str, Any]:
        if action.verb == "note":
            return {"status": "ok", "note": "noted"}
        if action.verb == "done":
            self.is_over = True
            return {"status": "ok", "note": "done"}
        if action.verb == "wait":
            return self._went(self.visit.show(self._shown.page))
        control = page.control(action.ref)
        assert control is not None, f"an oracle acts on {action.ref}"
        if self.is_covered and control.field != "close-notice":
            return {"status": "failed", "note": "covered", "by": self._shown.notice}
        if control.field == "close-notice":
            self.is_covered = False
        elif control.kind == "link":
            target = self.errand.page(next(item.to for item in self._shown.links if item.text == control.name))
            assert target is not None
            return self._went(self.visit.show(target))
        elif control.kind == "button":
            return self._hand_in()
        else:
            ticks = {"check": (TICKED,), "uncheck": (), "choose": (control.name,)}
            self.values[control.field] = ticks.get(action.verb, (action.value or "",))
        return {"status": "ok", "note": "ok"}

    def _hand_in(self) -> dict[str, Any]:
        page = self._shown.page
        before = len(self.visit.submissions)
        answer = self.visit.receive(page, {item.name: self.values[item.name] for item in page.entries})
        if self.visit.message:
            self._arrive(answer)
            return {"status": "ok", "note": "busy", "message": self.visit.message}
        if len(self.visit.submissions) > before and not self.visit.is_accepted:
            self._arrive(answer)
            return {"status": "ok", "note": "rejected", "messages": self.visit.submissions[-1].errors}
        return self._went(answer)

    def _went(self, answer: View | str) -> dict[str, Any]:
        self._arrive(answer)
        if self.is_over:
            return {"status": "ok", "note": "submitted"}
        return {"status": "ok", "note": "page", "here": self._number, "title": self._shown.page.title}
