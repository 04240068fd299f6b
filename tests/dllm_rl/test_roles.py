"""What roles are asked and how their words are read, without a policy."""

from __future__ import annotations

import pytest

from dllm_rl.errors import ConfigError
from dllm_rl.notebook import Notebook
from dllm_rl.records.plan import parse_turn
from dllm_rl.records.rollout import Call, Completion, Turn
from dllm_rl.records.tasks import ActionResult, Control, Observation, Outcome, Task
from dllm_rl.roles import (
    NO_REFLECTION,
    Asking,
    Instruction,
    Reflection,
    Roles,
    grounder_prompt,
    noted,
    read_plan,
    read_reflection,
)

PAGE = Observation(titles=("Join",), controls=(Control(ref="p1.e1", kind="text", name="Name"),))
TASK = Task(id="t", split="val", site="s", instruction="Name: Ada", gold=())
DONE = ActionResult(line=1, text='fill p1.e1 "Eve"', status="ok", note="ok fill p1.e1: holds Eve")


def turn_of(*calls: Call) -> Turn:
    completion = Completion(plan='fill p1.e1 "Eve"', calls=calls)
    return Turn(observation=PAGE, completion=completion, outcome=Outcome(task_id="t", actions=(DONE,)))


def asking(**changes) -> Asking:
    given = {"task": TASK, "turns": (turn_of(),), "page": PAGE, "notebook": Notebook(), "fits": lambda text: True}
    return Asking(**{**given, **changes})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ok", Reflection(text="ok", status="ok")),
        (
            'failed "Name is wrong"\nnote "PIN 7"',
            Reflection(text='failed "Name is wrong"', status="failed", notes=('note "PIN 7"',)),
        ),
        ("done\nok", Reflection(text="done", status="done")),
        ('blocked "login"', Reflection(text='blocked "login"', status="blocked")),
        ("", NO_REFLECTION),
        ("done it all", NO_REFLECTION),
        ('note "unclosed\nfail', NO_REFLECTION),
    ],
)
def test_any_text_is_a_reflection(text, wanted) -> None:
    assert read_reflection(text) == wanted


def test_a_plan_names_controls_and_what_is_grounded_keeps_verb_and_value() -> None:
    lines = read_plan('fill "Full \\"name\\"" "Ada"\nsubmit "Send"\nnote "x"\nfill p1.e3 "Ada"\ngibberish\nfill "Name"')
    assert lines == [
        Instruction(verb="fill", target='"Full \\"name\\""', rest=' "Ada"'),
        Instruction(verb="submit", target='"Send"', rest=""),
        'note "x"',
        Instruction(verb="fill", target="p1.e3", rest=' "Ada"'),
        "gibberish",
        'fill "Name"',
    ]
    assert isinstance(lines[0], Instruction)
    assert lines[0].grounded("p1.e2") == 'fill p1.e2 "Ada"'


@pytest.mark.parametrize("said", ["", "the field", "p1.e1 p1.e2", "\n", 'p1.e1 "Eve"'])
def test_what_is_no_ref_makes_a_line_that_is_no_action(said) -> None:
    (line,) = read_plan('fill "Name" "Ada"')
    assert isinstance(line, Instruction)
    assert not parse_turn(line.grounded(said)).actions


def test_the_planner_reads_the_feedback_unless_a_reflector_read_it_for_it() -> None:
    alone = asking().planner()
    told = asking(reflection=Reflection(text='failed "wrong name"', status="failed")).planner()
    assert "holds Eve" in alone and "reflector:" not in alone
    assert "holds Eve" not in told and 'did fill p1.e1 "Eve"' in told
    assert told.startswith('role: planner\nreflector: failed "wrong name"\ntask: Name: Ada\n')
    assert alone.endswith("plan:\n") and told.endswith("plan:\n")


def test_each_role_reads_what_is_published_of_it() -> None:
    earlier = Observation(titles=("Start",), controls=())
    first = Turn(observation=earlier, completion=Completion(plan="wait"), outcome=Outcome(task_id="t"))
    known = asking(turns=(first, turn_of()), notes=('note "PIN 7"',))
    reflector, summarizer, actor = known.reflector(), known.summarizer(), known.actor()
    assert reflector.count("earlier:") == 1 and "holds Eve" in reflector and reflector.endswith("reflection:\n")
    assert summarizer.count("earlier:") == 2 and summarizer.endswith("answer:\n")
    assert all('note "PIN 7"' in text for text in (reflector, summarizer, known.planner()))
    assert "Eve" not in actor and "PIN" not in actor and "task: Name: Ada" in actor
    pointing = grounder_prompt(PAGE, Instruction(verb="fill", target='"Name"', rest=' "Ada"'))
    assert pointing == 'role: grounder\nfind: fill "Name"\npage 1: Join\np1.e1 Name : text\nref:\n'


def test_a_prompt_that_is_too_long_loses_earlier_pages_and_lines_but_keeps_its_head() -> None:
    known = asking(fits=lambda text: len(text) < 75)
    assert known.reflector() == "role: reflector\ntask: Name: Ada\npage 1: Join\np1.e1 Name : text\nreflection:\n"


def test_notes_are_those_of_the_reflector() -> None:
    said = Completion(plan='ok\nnote "PIN 7"')
    assert noted([turn_of(Call(role="reflector", completion=said)), turn_of()]) == ('note "PIN 7"',)
    assert noted([turn_of(Call(role="planner", completion=said))]) == ()


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"reflector": False, "planner": False, "grounder": False, "summarizer": False}, "all of them switched off"),
        ({"planner": False}, "a grounder and no planner"),
    ],
)
def test_switches_without_effect_are_refused(switches, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Roles(**switches)
