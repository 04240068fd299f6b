"""The plan language: one action a line, over refs of the observed page. Parser, renderer and verb table, free of torch.

Grammar (also in docs/plan_language.md):

    plan   := line ("\\n" line)*
    line   := blanks [ verb SP ref [ SP quoted ] ] blanks
    ref    := "p" digits "." "e" digits
    quoted := '"' ( any character but '"', '\\', newline | '\\"' | '\\\\' | '\\n' )* '"'

In an episode of several turns a line may also be a command of the page as a whole:

    command := "back" | "wait" | "scroll" SP ( "up" | "down" ) | "note" SP quoted | "done" [ SP quoted ]

The parser is total: any text has a reading, as actions plus errors that name line, column and what was expected.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

Verb = Literal["fill", "select", "check", "uncheck", "choose", "click", "press", "clear", "upload", "next", "submit"]
VERBS: tuple[str, ...] = get_args(Verb)
Command = Literal["scroll", "back", "wait", "note", "done"]
COMMANDS: tuple[str, ...] = get_args(Command)
DIRECTIONS: tuple[str, ...] = ("up", "down")
VERBS_WITH_VALUE: frozenset[str] = frozenset({"fill", "select", "press", "upload"})
PRESSABLE_KEYS: tuple[str, ...] = ("Enter", "Tab", "Escape", "Space", "ArrowDown", "ArrowUp")

# Which verbs fit which kind of control; the page-grounded grammar is built from this table and from nothing else.
VERBS_BY_KIND: dict[str, tuple[str, ...]] = {
    "text": ("fill", "clear", "press", "click"),
    "email": ("fill", "clear", "press", "click"),
    "tel": ("fill", "clear", "press", "click"),
    "number": ("fill", "clear", "press", "click"),
    "date": ("fill", "clear", "press", "click"),
    "textarea": ("fill", "clear", "press", "click"),
    "select": ("select",),
    "multiselect": ("select",),
    "radio": ("choose", "click"),
    "checkbox": ("check", "uncheck", "click"),
    "file": ("upload",),
    "button": ("click", "next", "submit", "press"),
    "link": ("click", "press"),
}
MAX_ACTIONS = 64
MAX_CHARACTERS = 8_000

_REF = re.compile(r"p[1-9]\d{0,2}\.e[1-9]\d{0,3}")
_WORD = re.compile(r"[^\s\"]*")
_ESCAPES = {'"': '"', "\\": "\\", "n": "\n"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One action. value is None for the verbs that take none; ref is "" for a command of the page as a whole."""

    verb: Verb | Command
    ref: str
    value: str | None = None
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ParseError:
    """Why a line is not an action. line and column are 1-based; column points at the first character that is wrong."""

    line: int
    column: int
    expected: str
    text: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: expected {self.expected} in {self.text!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A parsed plan. Malformed lines are errors beside the actions, and stay in every denominator."""

    actions: tuple[Action, ...]
    errors: tuple[ParseError, ...] = ()

    @property
    def is_parsed(self) -> bool:
        """True where every line is an action."""
        return not self.errors


class _MalformedError(Exception):
    def __init__(self, column: int, expected: str) -> None:
        self.column, self.expected = column, expected


def parse_plan(text: str) -> Plan:
    """Read any text as a plan. Never raises on content: what is not an action becomes a ParseError."""
    return _parse(text, _parse_line)


def parse_turn(text: str) -> Plan:
    """Read any text as a turn of an episode: as `parse_plan`, with the commands."""
    return _parse(text, _parse_turn_line)


def _parse(text: str, parse_line: Callable[[str, int], Action]) -> Plan:
    actions: list[Action] = []
    errors: list[ParseError] = []
    if len(text) > MAX_CHARACTERS:
        errors.append(_too_long(text))
        text = text[:MAX_CHARACTERS]
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip(" \t\r"):
            continue
        if len(actions) >= MAX_ACTIONS:
            errors.append(ParseError(line=number, column=1, expected=f"at most {MAX_ACTIONS} actions", text=line))
            break
        try:
            actions.append(parse_line(line, number))
        except _MalformedError as error:
            errors.append(ParseError(line=number, column=error.column + 1, expected=error.expected, text=line))
    return Plan(actions=tuple(actions), errors=tuple(errors))


def _too_long(text: str) -> ParseError:
    line = text.count("\n", 0, MAX_CHARACTERS) + 1
    return ParseError(line=line, column=1, expected=f"at most {MAX_CHARACTERS} characters", text=text[:40])


def _parse_line(line: str, number: int) -> Action:
    position = len(line) - len(line.lstrip(" \t"))
    end = len(line.rstrip(" \t\r"))
    word = _WORD.match(line, position, end)
    verb = word.group() if word else ""
    if verb not in VERBS:
        raise _MalformedError(position, f"a verb ({', '.join(VERBS)})")
    position = _one_space(line, position + len(verb), end)
    ref = _REF.match(line, position, end)
    if ref is None:
        raise _MalformedError(position, "a ref such as p1.e3")
    position = ref.end()
    value = None
    if verb in VERBS_WITH_VALUE:
        position = _one_space(line, position, end)
        value, position = _quoted(line, position, end)
        if verb == "press" and value not in PRESSABLE_KEYS:
            raise _MalformedError(ref.end() + 1, f"a key ({', '.join(PRESSABLE_KEYS)})")
    if position != end:
        raise _MalformedError(position, "end of line")
    return Action(verb=verb, ref=ref.group(), value=value, line=number)  # type: ignore[arg-type]


def _parse_turn_line(line: str, number: int) -> Action:
    position = len(line) - len(line.lstrip(" \t"))
    end = len(line.rstrip(" \t\r"))
    word = _WORD.match(line, position, end)
    verb = word.group() if word else ""
    if verb not in COMMANDS:
        return _parse_line(line, number)
    position += len(verb)
    value = None
    if verb == "scroll":
        position = _one_space(line, position, end)
        value = line[position:end]
        if value not in DIRECTIONS:
            raise _MalformedError(position, "up or down")
        position = end
    elif verb == "note" or (verb == "done" and position != end):
        value, position = _quoted(line, _one_space(line, position, end), end)
    if position != end:
        raise _MalformedError(position, "end of line")
    return Action(verb=verb, ref="", value=value, line=number)  # type: ignore[arg-type]


def _one_space(line: str, position: int, end: int) -> int:
    if position >= end or line[position] != " ":
        raise _MalformedError(position, "one space")
    return position + 1


def _quoted(line: str, position: int, end: int) -> tuple[str, int]:
    if position >= end or line[position] != '"':
        raise _MalformedError(position, 'a value in double quotes, such as "Anna"')
    characters: list[str] = []
    position += 1
    while position < end:
        character = line[position]
        if character == '"':
            return "".join(characters), position + 1
        if character == "\\":
            escape = line[position + 1] if position + 1 < end else ""
            if escape not in _ESCAPES:
                raise _MalformedError(position, 'one of the escapes \\" \\\\ \\n')
            characters.append(_ESCAPES[escape])
            position += 2
        else:
            characters.append(character)
            position += 1
    raise _MalformedError(end, "a closing double quote")


def quote(value: str) -> str:
    """Write a value as a quoted string that parses back to it."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def render_action(action: Action) -> str:
    """Write one action as a line of plan language."""
    head = f"{action.verb} {action.ref}" if action.ref else action.verb
    if action.value is None:
        return head
    return f"{head} {action.value if action.verb == 'scroll' else quote(action.value)}"


def render_plan(plan: Plan | tuple[Action, ...]) -> str:
    """Write the actions of a plan, one a line; the parser gives them back."""
    actions = plan.actions if isinstance(plan, Plan) else plan
    return "\n".join(render_action(action) for action in actions)
