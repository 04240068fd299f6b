"""The plan language: what is rendered parses back, any text has a reading, and errors point at what is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_rl.records.plan import (
    MAX_ACTIONS,
    MAX_CHARACTERS,
    PRESSABLE_KEYS,
    VERBS,
    VERBS_BY_KIND,
    VERBS_WITH_VALUE,
    Action,
    parse_plan,
    quote,
    render_action,
    render_plan,
)

refs = st.builds("p{}.e{}".format, st.integers(1, 999), st.integers(1, 9999))
values = st.text(max_size=30)
plain = st.builds(Action, verb=st.sampled_from([verb for verb in VERBS if verb not in VERBS_WITH_VALUE]), ref=refs)
valued = st.builds(Action, verb=st.sampled_from(["fill", "select", "upload"]), ref=refs, value=values)
presses = st.builds(Action, verb=st.just("press"), ref=refs, value=st.sampled_from(PRESSABLE_KEYS))
actions = st.one_of(plain, valued, presses)
# Text that looks like plans, so that the interesting corners are reached.
PIECES = ("p1.e1", "p0.e1", "p1e1", " ", "  ", '"', "\\", '\\"', "\\n", "\n", "\r", "\t", "a", "é", "\x00")
near_plans = st.lists(st.sampled_from([*VERBS, *PIECES]), max_size=40).map("".join)


@given(st.lists(actions, max_size=MAX_ACTIONS))
def test_what_is_rendered_parses_back(plan: list[Action]) -> None:
    text = render_plan(tuple(plan))
    if len(text) <= MAX_CHARACTERS:
        parsed = parse_plan(text)
        assert parsed.is_parsed, parsed.errors
        assert [(action.verb, action.ref, action.value) for action in parsed.actions] == [
            (action.verb, action.ref, action.value) for action in plan
        ]
        assert [action.line for action in parsed.actions] == list(range(1, len(plan) + 1))


@given(st.one_of(st.text(max_size=300), near_plans))
def test_any_text_has_a_reading(text: str) -> None:
    plan = parse_plan(text)
    lines = text.split("\n")
    used = [action.line for action in plan.actions] + [error.line for error in plan.errors]
    assert len(used) == len(set(used))
    assert len(used) == sum(bool(line.strip(" \t\r")) for line in lines)
    for error in plan.errors:
        assert 1 <= error.line <= len(lines)
        assert 1 <= error.column <= len(lines[error.line - 1]) + 1
        assert error.expected


@given(near_plans)
def test_what_parsed_renders_to_the_same_actions(text: str) -> None:
    plan = parse_plan(text)
    again = parse_plan(render_plan(plan))
    assert again.is_parsed
    assert [render_action(action) for action in again.actions] == [render_action(action) for action in plan.actions]


@given(values)
def test_quoting_keeps_a_value(value: str) -> None:
    (action,) = parse_plan(f"fill p1.e1 {quote(value)}").actions
    assert action.value == value
    assert "\n" not in quote(value)


@pytest.mark.parametrize("text", ["", "\n", "  \n\t\r\n"])
def test_an_empty_plan_is_valid(text: str) -> None:
    assert parse_plan(text).is_parsed
    assert parse_plan(text).actions == ()


@pytest.mark.parametrize(
    ("line", "column", "expected"),
    [
        ("type p1.e1", 1, "a verb"),
        ('fill "x"', 6, "a ref such as p1.e3"),
        ("fill", 5, "one space"),
        ('fill  p1.e1 "x"', 6, "a ref such as p1.e3"),
        ('fill p0.e1 "x"', 6, "a ref such as p1.e3"),
        ('fill e1 "x"', 6, "a ref such as p1.e3"),
        ("fill p1.e1", 11, "one space"),
        ("fill p1.e1 x", 12, "a value in double quotes"),
        ('fill p1.e1 "x', 14, "a closing double quote"),
        ('fill p1.e1 "\\x"', 13, "one of the escapes"),
        ('fill p1.e1 "x" y', 15, "end of line"),
        ('check p1.e1 "x"', 12, "end of line"),
        ('press p1.e1 "F1"', 13, "a key"),
        ("  click p1", 9, "a ref such as p1.e3"),
    ],
)
def test_an_error_names_column_and_what_was_expected(line: str, column: int, expected: str) -> None:
    (error,) = parse_plan(f"\n{line}").errors
    assert error.line == 2
    assert error.expected.startswith(expected)
    assert error.column == column
    assert str(error).startswith(f"line 2, column {column}: expected {expected}")


def test_a_malformed_line_does_not_take_others_with_it() -> None:
    plan = parse_plan('fill p1.e1 "a"\nnonsense\nsubmit p1.e2')
    assert [action.verb for action in plan.actions] == ["fill", "submit"]
    assert [error.line for error in plan.errors] == [2]


def test_a_plan_has_a_stated_size() -> None:
    long = parse_plan("\n".join(["click p1.e1"] * (MAX_ACTIONS + 5)))
    assert len(long.actions) == MAX_ACTIONS
    assert long.errors[-1].expected == f"at most {MAX_ACTIONS} actions"
    huge = parse_plan("x" * (MAX_CHARACTERS + 1))
    assert any(error.expected == f"at most {MAX_CHARACTERS} characters" for error in huge.errors)


def test_every_verb_of_the_table_is_a_verb_and_every_kind_has_one() -> None:
    used = {verb for verbs in VERBS_BY_KIND.values() for verb in verbs}
    assert used <= set(VERBS)
    assert all(VERBS_BY_KIND.values())
