"""Roles: a turn of an episode written in several calls, in the order that OpAgent published.

Reflector (from the second turn on); then, where it says done, the Summarizer, and the episode ends; else the Planner,
and the Grounder once for each of its lines about a control; then the turn is run. The Summarizer is asked as well where
the Planner says done, and at the last turn. OpAgent's to-do list and its tips for sites are left out.

What is written in a role is read totally: any text has a reading.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

from dllm_rl.errors import ConfigError
from dllm_rl.notebook import Notebook
from dllm_rl.records.plan import parse_turn
from dllm_rl.records.rollout import Turn
from dllm_rl.records.tasks import Observation, Task, render_page

Role = Literal["reflector", "planner", "actor", "grounder", "summarizer"]
Status = Literal["ok", "failed", "blocked", "done"]

REFLECTOR: Role = "reflector"
# What a prompt ends with, where that of a turn ends with `plan:`.
_ASKED: dict[Role, str] = {
    "reflector": "reflection",
    "planner": "plan",
    "actor": "plan",
    "grounder": "ref",
    "summarizer": "answer",
}
_USUAL_END = "plan:\n"
# Pages that the Reflector compares, and those that the Summarizer reads (OpAgent shows it the last five).
REFLECTED_PAGES, SUMMARISED_PAGES = 2, 5
MAX_NOTES = 8
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_REFLECTION = re.compile(rf"(ok|failed|blocked|done)(?: {_QUOTED})?")
_NOTE = re.compile(rf"note {_QUOTED}")
_INSTRUCTION = re.compile(rf"\s*(\w+) ({_QUOTED}|p\d+\.e\d+)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Which roles there are; without one of them, the rest goes on as follows.

    Attributes:
        reflector: Says what came of the last turn. Without it the Planner reads the feedback itself.
        planner: Says what is to be done, with names instead of refs. Without it an actor writes the turn from the task
            and the present page alone.
        grounder: Points: it reads one line of the Planner and the page, and writes a ref. Without it the Planner writes
            refs.
        summarizer: Writes the answer. Without it the answer is what the Planner says with `done`.
    """

    reflector: bool = True
    planner: bool = True
    grounder: bool = True
    summarizer: bool = True

    def __post_init__(self) -> None:
        if not any(getattr(self, item.name) for item in fields(self)):
            raise ConfigError("roles has all of them switched off. Leave roles out.")
        if self.grounder and not self.planner:
            raise ConfigError(
                "roles has a grounder and no planner; without one nothing is said that could be pointed to. Set "
                "grounder: false as well."
            )

    @property
    def names(self) -> tuple[Role, ...]:
        """The roles that are asked, the actor in place of the planner."""
        writer: Role = "planner" if self.planner else "actor"
        asked: tuple[tuple[Role, bool], ...] = (
            ("reflector", self.reflector),
            (writer, True),
            ("grounder", self.grounder),
            ("summarizer", self.summarizer),
        )
        return tuple(name for name, is_asked in asked if is_asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reflection:
    """What the Reflector said.

    Attributes:
        text: The line about the last turn; "" where it said nothing of the kind.
        status: What it says of the turn; None likewise.
        notes: Lines that are kept for later turns.
    """

    text: str = ""
    status: Status | None = None
    notes: tuple[str, ...] = ()


NO_REFLECTION = Reflection()


def read_reflection(text: str) -> Reflection:
    """Read any text: the first line that is a status, and all that are notes."""
    lines = [line.strip() for line in text.split("\n")]
    said = next((line for line in lines if _REFLECTION.fullmatch(line)), "")
    status = said.split(" ")[0] or None
    notes = tuple(line for line in lines if _NOTE.fullmatch(line))
    return Reflection(text=said, status=status, notes=notes)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """A line of the Planner about a control, which it names in words.

    Attributes:
        verb: What is to be done with it.
        target: Its name, in quotes.
        rest: What follows: the value, after a space.
    """

    verb: str
    target: str
    rest: str

    @property
    def asked(self) -> str:
        """What the Grounder reads of it. It cannot change the verb, nor the value."""
        return f"{self.verb} {self.target}"

    def grounded(self, said: str) -> str:
        """Return the line with the Grounder's ref for the name. Without a ref the line cannot be parsed."""
        return f"{self.verb} {said.strip().split(chr(10))[0] or '?'}{self.rest}"


def read_plan(text: str) -> list[Instruction | str]:
    """Split the Planner's text: lines about a control become instructions to ground; all others stay text."""
    return [_read_line(line) for line in text.split("\n") if line.strip()]


def _read_line(line: str) -> Instruction | str:
    found = _INSTRUCTION.fullmatch(line)
    if found is None:
        return line
    verb, target, rest = found.groups()
    actions = parse_turn(f"{verb} p1.e1{rest}").actions
    # A line with a ref is grounded too: the Planner does not point.
    return Instruction(verb=verb, target=target, rest=rest) if actions and actions[0].ref else line


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Writes the prompts of roles at one turn.

    Attributes:
        notebook: What is kept of earlier turns.
        fits: Whether a prompt is short enough; what is kept of earlier turns is cut until it is.
        notes: What the Reflector noted so far, this turn included.
        reflection: What it said of the last turn; None without a Reflector.
    """

    task: Task
    turns: Sequence[Turn]
    page: Observation
    notebook: Notebook
    fits: Callable[[str], bool]
    notes: tuple[str, ...] = ()
    reflection: Reflection | None = None

    def reflector(self) -> str:
        """The page before, what was done and what was answered, and the present page."""
        pages = max(REFLECTED_PAGES, self.notebook.num_observations)
        return self._addressed("reflector", replace(self.notebook, num_observations=pages))

    def planner(self) -> str:
        """What a turn's prompt says; of the feedback, where there is a Reflector, only what that said."""
        if self.reflection is None:
            return self._addressed("planner", self.notebook)
        kept = {"full": "actions", "feedback": "none"}.get(self.notebook.memory, self.notebook.memory)
        notebook = replace(self.notebook, memory=kept, feedback=False)
        said = (f"reflector: {self.reflection.text}",) if self.reflection.text else ()
        return self._addressed("planner", notebook, said)

    def actor(self) -> str:
        """The task and the present page."""
        return self._addressed("actor", self.notebook, turns=())

    def summarizer(self) -> str:
        """The last pages and all that was kept."""
        return self._addressed("summarizer", replace(self.notebook, num_observations=SUMMARISED_PAGES))

    def _addressed(
        self, role: Role, notebook: Notebook, said: tuple[str, ...] = (), turns: Sequence[Turn] | None = None
    ) -> str:
        notes = () if role == "actor" else self.notes[-MAX_NOTES:]

        def whole(text: str) -> str:
            return "\n".join((f"role: {role}", *said, *notes, text.removesuffix(_USUAL_END) + f"{_ASKED[role]}:\n"))

        known = self.turns if turns is None else turns
        return whole(notebook.prompt(self.task, known, self.page, lambda text: self.fits(whole(text))))


def grounder_prompt(page: Observation, instruction: Instruction) -> str:
    """What the Grounder reads: one line of the Planner and the elements of the page. No task and no history."""
    head = ("role: grounder", f"find: {instruction.asked}")
    return "\n".join([*head, *render_page(page), f"{_ASKED['grounder']}:\n"])


def noted(turns: Sequence[Turn]) -> tuple[str, ...]:
    """What the Reflector noted at these turns."""
    return tuple(
        note
        for turn in turns
        for call in turn.completion.calls
        if call.role == REFLECTOR
        for note in read_reflection(call.completion.plan).notes
    )
