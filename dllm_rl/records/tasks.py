"""Tasks, pages and outcomes, free of torch, and the one prompt template.

A task asks for one form (possibly over several pages) to be filled in and submitted with given values. An observation
is what the policy may read of it; an outcome is what the server and the browser saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

ControlKind = Literal[
    "text",
    "email",
    "tel",
    "number",
    "date",
    "textarea",
    "select",
    "multiselect",
    "radio",
    "checkbox",
    "file",
    "button",
    "link",
]
SPLITS = ("train", "val", "test", "test_layout")
# The field in which an environment that pays by itself says what an episode has earned.
RETURN = "return"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A control that exists only after an answer: shown in the observation as `appears when p1.e4 = "Yes"`.

    Attributes:
        ref: The deciding control (for radios, the ref of the option to choose).
        value: Option of a select; "checked" or "unchecked" for a checkbox; the option's name for a radio; "open" for a
            button that opens a part of the page.
    """

    ref: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One control of an observation, in reading order.

    Attributes:
        ref: Deterministic reference per task, `p<page>.e<number>`.
        name: Accessible name, as the browser computes it.
        group: Legend of the radio or checkbox group, else "".
        field: The control's HTML `name` attribute; for the harness (oracle, scoring) and never shown to a policy.
            Without one its accessible name or its id, by which scripts send it.
        place: Which one it is, from 0, of the controls of its page with the same kind, field and name.
        value: Current value ("" when empty; "checked"/"" for radio and checkbox).
    """

    ref: str
    kind: ControlKind
    name: str
    group: str = ""
    options: tuple[str, ...] = ()
    required: bool = False
    disabled: bool = False
    value: str = ""
    condition: Condition | None = None
    field: str = ""
    place: int = 0

    @property
    def page_number(self) -> int:
        """Number of the page (1-based) on which the control stands."""
        return int(self.ref[1 : self.ref.index(".")])


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """Text of a page that belongs to no control.

    Attributes:
        before: Ref of the control that follows it, "" at the end.
    """

    text: str
    before: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the policy may read of a task's site.

    Of a scouted site: every control of every page, all branches included. In an episode: what stands in the window of
    the present page, and nothing else.

    Attributes:
        titles: Heading of page 1, 2, ... in order; "" for a page that does not stand now.
        controls: The controls, in reading order.
        instruction: What is asked for, where only the page says it and the task does not.
        passages: Text between the controls, in reading order.
        errors: What the page announces, such as why it was refused.
        num_above: Controls above the window.
        num_below: Controls below it.
        picture: The window as a PNG in base64, where the environment takes pictures.
    """

    titles: tuple[str, ...]
    controls: tuple[Control, ...]
    instruction: str = ""
    passages: tuple[Passage, ...] = ()
    errors: tuple[str, ...] = ()
    num_above: int = 0
    num_below: int = 0
    picture: str = field(default="", compare=False, repr=False)

    @property
    def title(self) -> str:
        """Heading of the last page: in an episode, of the present one."""
        return self.titles[-1] if self.titles else ""

    def control(self, ref: str) -> Control | None:
        """Return the control with this ref, or None."""
        return next((control for control in self.controls if control.ref == ref), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldField:
    """One value that the server must receive.

    Attributes:
        name: The site's HTML field name.
        wanted: One string, or several for a multi-value field (compared as a set).
        kind: Decides the equality (dates by value, numbers by value, text trimmed, booleans "on"/"").
        label: The field's label as the instruction's author knows it (for reports).
    """

    name: str
    kind: ControlKind
    wanted: tuple[str, ...]
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One thing to do on one site.

    Attributes:
        id: Unique and stable, `<split>/<kind>-<site seed>-<index>.<digest>` for built-in sites.
        site: Key of the site (form kind, layout family and seed), from which the server renders every page.
        dial: How far the wording of the instruction is from the form (0 pairs, 1 sentences, 2 conversions).
    """

    id: str
    split: str
    site: str
    instruction: str
    gold: tuple[GoldField, ...]
    dial: int = 0


class Ending(StrEnum):
    """How an episode ended.

    Attributes:
        FINISHED: The server accepted a record, right or wrong.
        DONE: The policy said so.
        TURNS: Its turns were used up.
        UNREADABLE: Several turns in a row had no line that is an action.
        DEADLINE: A page did not react to an action.
        LEFT: An action led out of the site.
        TOO_LONG: The page did not fit into the policy's `max_prompt`.
        LOST: The environment failed; such an episode has no reward.
    """

    FINISHED = "finished"
    DONE = "done"
    TURNS = "turns"
    UNREADABLE = "unreadable"
    DEADLINE = "deadline"
    LEFT = "left"
    TOO_LONG = "too_long"
    LOST = "lost"


class Fault(StrEnum):
    """Whose failure it was. Faults of environment and judge are masked out of every statistic, never scored as zero."""

    NONE = "none"
    AGENT = "agent"
    ENVIRONMENT = "environment"
    JUDGE = "judge"

    @property
    def is_loss(self) -> bool:
        """Whether the rollout is lost: nothing is known of the agent, or there is nothing to pay it."""
        return self in (Fault.ENVIRONMENT, Fault.JUDGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldResult:
    """One gold field after the plan ran.

    Attributes:
        server: Values in the accepted payload, None where nothing was accepted.
        dom: Values in the page at the end.
        is_correct: wanted equals server (or dom, where nothing was accepted).
        is_default: The untouched page already held the wanted value, so it earns nothing.
    """

    name: str
    wanted: tuple[str, ...]
    server: tuple[str, ...] | None
    dom: tuple[str, ...] | None
    is_correct: bool
    is_default: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionResult:
    """One line of the plan and what happened to it.

    Attributes:
        status: Ok, failed, malformed or skipped.
    """

    line: int
    text: str
    status: Literal["ok", "failed", "malformed", "skipped"]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All that is needed to judge a rollout without running it again.

    Attributes:
        is_submitted: The server accepted a submission.
        is_clean: Every field that is not gold was received at its default.
        pages_reached, num_pages: Progress through a wizard (1-based count of pages seen, out of those on the gold
            path).
        num_rejected: Submissions that the server answered with an error page.
        errors_by_rejection: How many errors each of them showed, in order.
        recheck: Whether a second run the way evaluation does it came to the same; "" for no second run.
        is_reused: The plan was not run, since an equal one had been; the outcome is that one's.
        ending: How an episode ended; None for a whole plan, and while an episode goes on.
        seconds: Wall time by phase.
    """

    task_id: str
    fault: Fault = Fault.NONE
    fault_reason: str = ""
    is_parsed: bool = True
    is_submitted: bool = False
    is_clean: bool = True
    fields: tuple[FieldResult, ...] = ()
    validity_errors: tuple[str, ...] = ()
    dialogs: tuple[str, ...] = ()
    actions: tuple[ActionResult, ...] = ()
    pages_reached: int = 0
    num_pages: int = 1
    num_submissions: int = 0
    num_rejected: int = 0
    errors_by_rejection: tuple[int, ...] = ()
    num_attempts: int = 1
    recheck: Literal["", "same", "different"] = ""
    is_reused: bool = False
    ending: Ending | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def is_valid(self) -> bool:
        """False where the environment lost the rollout, or the judge gave no answer: it then has no reward at all."""
        return not self.fault.is_loss

    @property
    def all_correct(self) -> bool:
        """Every gold field holds its wanted value."""
        return bool(self.fields) and all(result.is_correct for result in self.fields)

    @property
    def is_success(self) -> bool:
        """Accepted, every gold field equal, every other field at its default, and something changed.

        Read from the payload only. The one definition of success: no reward has another.
        """
        return self.is_submitted and self.all_correct and self.is_clean and self.has_changed_something

    @property
    def has_changed_something(self) -> bool:
        """At least one gold field went from something else to its right value."""
        return any(result.is_correct and not result.is_default for result in self.fields)

    @property
    def is_near_miss(self) -> bool:
        """All fields right, nothing accepted."""
        return self.all_correct and not self.is_submitted

    def notes(self, limit: int = 4) -> str:
        """Say what went wrong, in a line: the fault, the first failed actions, the wrong fields."""
        parts = [f"fault: {self.fault_reason}"] if self.fault_reason else []
        said = [action.note for action in self.actions if action.status in ("failed", "malformed") and action.note]
        parts += [note for note in dict.fromkeys(said) if note not in self.fault_reason]
        for result in self.fields:
            if not result.is_correct:
                shown = ", ".join((result.dom if result.server is None else result.server) or ()) or "nothing"
                parts.append(f"{result.name}: wanted {', '.join(result.wanted) or 'unset'}, got {shown}")
        if self.is_success:
            parts.append("success")
        elif not self.is_submitted:
            parts.append("not submitted")
        return "; ".join(parts[:limit])


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardRecord:
    """Reward of a rollout, and beside it the truth in parts, each in [0, 1].

    Attributes:
        value: The reward that is paid.
        submission: Whether something was accepted that earns anything.
        field_accuracy: Share of gold fields that hold their wanted value.
        progress: How far the plan came.
        claim: What a reward that does not read the truth takes for success; None for one that reads it.
        components: Parts of what is paid, by name.

    A rollout that is lost has no reward: what is paid is 0 and must be masked by `Outcome.is_valid`.
    """

    value: float
    submission: float
    field_accuracy: float
    progress: float
    claim: float | None = None
    components: Mapping[str, float] = field(default_factory=dict)


def render_prompt(task: Task, observation: Observation) -> str:
    """Write the instruction, then what may be read of the site."""
    head = f"task: {task.instruction or observation.instruction}"
    return "\n".join([head, *render_page(observation), "plan:\n"])


def render_page(observation: Observation) -> list[str]:
    """Write what stands on the pages, one control or passage a line, in reading order."""
    lines: list[str] = []
    number = 0
    passages: dict[str, list[str]] = {}
    for passage in observation.passages:
        passages.setdefault(passage.before, []).append(passage.text)
    for control in observation.controls:
        if control.page_number != number:
            number = control.page_number
            lines += _page_head(observation, number)
        lines += passages.get(control.ref, ())
        lines.append(render_control(control))
    if observation.passages and not observation.controls:
        lines += _page_head(observation, len(observation.titles))
    lines += passages.get("", ())
    return [*lines, f"({observation.num_below} below)"] if observation.num_below else lines


def _page_head(observation: Observation, number: int) -> list[str]:
    title = observation.titles[number - 1] if number <= len(observation.titles) else ""
    above = [f"({observation.num_above} above)"] if observation.num_above else []
    return [f"page {number}: {title}", *(f"error: {text}" for text in observation.errors), *above]


def render_control(control: Control) -> str:
    """Write one control: ref, name, kind and what it offers, its state, and when it appears.

    The name stands right behind the ref, since binding the two is what a policy must learn first.
    """
    parts = [control.ref, control.name, ":", control.kind]
    if control.group:
        parts.append(control.group)
    if control.options:
        parts.append(" | ".join(control.options))
    if control.value and control.kind in ("radio", "checkbox"):
        parts.append("(checked)")
    elif control.value and control.kind not in ("button", "link", "select", "multiselect"):
        parts.append(f"(now {control.value})")
    if control.required:
        parts.append("*")
    if control.disabled:
        parts.append("(disabled)")
    if control.condition is not None:
        parts.append(f"(appears when {control.condition.ref} = {control.condition.value})")
    return " ".join(parts)
