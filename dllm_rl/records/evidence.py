"""What a reward may read of an episode: pages, actions and their feedback, and the truth apart from them.

The policy's own words are left out. A line that could not be parsed still counts as a line, but without its text.
Agents that only rewrite their reasoning, with the same actions and pages, make judges of web agents accept up to 90 %
more failures (arXiv 2601.14691).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dllm_rl.records.plan import parse_plan, parse_turn, render_action
from dllm_rl.records.tasks import RETURN, ActionResult, Control, GoldField, Observation, Outcome, Task

if TYPE_CHECKING:
    from dllm_rl.records.rollout import Turn

_REF = re.compile(r"p\d+\.e\d+")
# The feedback of a line that changed nothing, as the harness words it.
_NO_CHANGE = "no visible change"
MALFORMED = "not an action"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenTurn:
    """One turn without the policy's words.

    Attributes:
        observation: The page before it.
        actions: The parsed actions and the feedback on each. A line that could not be parsed has an empty text and the
            note `not an action`; of `note` and `done` only the verb is kept. None where the environment takes texts.
    """

    observation: Observation
    actions: tuple[ActionResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What a policy cannot see: the values that the server must receive, and the outcome of the episode."""

    gold: tuple[GoldField, ...]
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """An episode as a reward sees it.

    Attributes:
        answer: What the last `done` that was reached said; None where none was, "" where it said nothing. An errand may
            ask for it, as for the value of a field, and it is of the policy's own wording.
        truth: None for a reward that does not need it.
    """

    instruction: str
    turns: tuple[SeenTurn, ...]
    answer: str | None = None
    truth: Truth | None = None

    @classmethod
    def of(cls, task: Task, turns: Sequence[Turn], outcome: Outcome) -> Evidence:
        """Take the evidence out of an episode's record."""
        on_page = next((turn.observation.instruction for turn in turns if turn.observation.instruction), "")
        return cls(
            instruction=task.instruction or on_page,
            turns=tuple(SeenTurn(observation=turn.observation, actions=_actions(task, turn)) for turn in turns),
            answer=None if _takes_texts(task) else _answer(turns),
            truth=Truth(gold=task.gold, outcome=outcome),
        )

    def without_truth(self) -> Evidence:
        """The same episode for a reward that must do without the truth."""
        return replace(self, truth=None)

    @property
    def actions(self) -> tuple[ActionResult, ...]:
        """The actions of all turns."""
        return tuple(action for turn in self.turns for action in turn.actions)


# Actions that carry the policy's words: what it notes for itself, and what it says when it is done.
_WORDY = ("note", "done")


def _takes_texts(task: Task) -> bool:
    """Whether actions are texts, noted with what each earned: so it is where the environment pays by itself."""
    return any(item.name == RETURN for item in task.gold)


def _actions(task: Task, turn: Turn) -> tuple[ActionResult, ...]:
    return () if _takes_texts(task) else tuple(map(_without_words, turn.outcome.actions))


def _answer(turns: Sequence[Turn]) -> str | None:
    """What the last `done` said; None where none was reached."""
    done = [
        action.value or ""
        for turn in turns
        for result in turn.outcome.actions
        if result.status == "ok"
        for action in parse_turn(result.text).actions
        if action.verb == "done"
    ]
    return done[-1] if done else None


def _without_words(action: ActionResult) -> ActionResult:
    if action.status == "malformed":
        return replace(action, text="", note=MALFORMED)
    verb = action.text.partition(" ")[0]
    return replace(action, text=verb, note="") if verb in _WORDY else action


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One action and what it acted on.

    Attributes:
        verb: "" for a line that is not an action.
        control: None where the page has none of this ref.
        before: What the control held, as far as the page and earlier actions tell.
    """

    turn: int
    verb: str
    value: str | None
    control: Control | None
    before: str
    result: ActionResult

    @property
    def is_ok(self) -> bool:
        """Whether it was carried out."""
        return self.result.status == "ok"

    @property
    def after(self) -> str:
        """What its control holds afterwards."""
        return _AFTER.get(self.verb, self.before if self.value is None else self.value) if self.is_ok else self.before

    @property
    def has_effect(self) -> bool:
        """Whether anything on the page is seen to have changed."""
        if not self.is_ok or _NO_CHANGE in self.result.note:
            return False
        return self.verb not in _SETTING or self.after != self.before


_AFTER = {"check": "checked", "choose": "checked", "uncheck": "", "clear": ""}
_SETTING = frozenset({"fill", "select", "upload", *_AFTER})


def steps_of(evidence: Evidence) -> list[Step]:
    """Every line of every turn, in order; malformed ones included."""
    found: list[Step] = []
    for number, turn in enumerate(evidence.turns):
        # Of each turn: the next one's page shows what really stands there.
        held: dict[str, str] = {}
        for result in turn.actions:
            ref = _REF.search(result.text)
            control = turn.observation.control(ref.group()) if ref else None
            before = "" if control is None else held.get(control.ref, control.value)
            parsed = parse_plan(result.text).actions
            step = Step(
                turn=number,
                verb=_verb(result.text, control, before),
                value=parsed[0].value if parsed else None,
                control=control,
                before=before,
                result=result,
            )
            if control is not None:
                held[control.ref] = step.after
            found.append(step)
    return found


def _verb(text: str, control: Control | None, before: str) -> str:
    """The verb of a line; a click on a radio button or a box by what it does."""
    verb = text.partition(" ")[0]
    if verb != "click" or control is None or control.kind not in ("radio", "checkbox"):
        return verb
    if control.kind == "radio":
        return "choose"
    return "uncheck" if before else "check"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What was put into one field of a page.

    Attributes:
        label: The field's name, of a radio button its group's.
    """

    label: str
    value: str
    control: Control


def executed_state(evidence: Evidence) -> list[Entry]:
    """What the executed actions left in the fields, in the order in which they were first set.

    Of a radio group the last choice counts. What was written and then emptied is left out, and so is what failed.
    """
    state: dict[tuple[str, ...], Entry] = {}
    for step in steps_of(evidence):
        control = step.control
        if control is None or not step.is_ok or step.verb not in _SETTING:
            continue
        page = control.ref.partition(".")[0]
        if control.kind == "radio":
            key, label, value = (page, control.group or control.field), control.group, control.name
        else:
            key, label, value = (control.ref, control.field, control.name), control.name, step.after
            key = (*key, value) if control.kind == "multiselect" else key
        state[key] = Entry(label=label, value=value, control=control)
    return [entry for entry in state.values() if entry.value]


def render_state(entries: Sequence[Entry]) -> str:
    """Write a state as text, `label: value` one a line, as inverters read it.

    A line break in a value becomes a space: otherwise one field could pass for several.
    """
    return "\n".join(" ".join(f"{entry.label}: {entry.value}".splitlines()) for entry in entries)


_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"?')


def page_feedback(action: ActionResult) -> str:
    """The note on an action without the policy's words: of a line that writes a value, quotations are left out.

    Feedback such as `no option "..."` quotes the value that was written.
    """
    parsed = parse_plan(action.text).actions
    has_value = bool(parsed) and parsed[0].value is not None
    return _QUOTED.sub('""', action.note) if has_value else action.note


def as_planned(instruction: str, page: Observation, plan: str) -> Evidence:
    """The evidence of a plan that was not run, as if every line that fits the page had done what it says."""
    parsed = parse_plan(plan)
    done = [
        ActionResult(
            line=action.line,
            text=render_action(action),
            status="ok" if page.control(action.ref) is not None else "failed",
        )
        for action in parsed.actions
    ]
    broken = [ActionResult(line=error.line, text="", status="malformed", note=MALFORMED) for error in parsed.errors]
    actions = tuple(sorted((*done, *broken), key=lambda item: item.line))
    return Evidence(instruction=instruction, turns=(SeenTurn(observation=page, actions=actions),))
