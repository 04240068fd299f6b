"""The notebook: what each switch keeps, what is dropped first, and that the first turn reads like a whole plan's."""

from __future__ import annotations

import pytest

from dllm_rl.errors import ConfigError
from dllm_rl.notebook import Notebook
from dllm_rl.records.rollout import Completion, Turn
from dllm_rl.records.tasks import ActionResult, Control, Observation, Outcome, Passage, Task, render_prompt

TASK = Task(id="train/t", split="train", site="s", instruction="Do it.", gold=())


def page(number: int, title: str) -> Observation:
    control = Control(ref=f"p{number}.e1", kind="text", name="Name")
    return Observation(titles=(*[""] * (number - 1), title), controls=(control,))


def turn(number: int, *actions: tuple[str, str, str]) -> Turn:
    results = tuple(
        ActionResult(line=line, text=text, status=status, note=note)  # type: ignore[arg-type]
        for line, (text, status, note) in enumerate(actions, start=1)
    )
    plan = "\n".join(text for text, _, _ in actions)
    outcome = Outcome(task_id=TASK.id, actions=results)
    return Turn(observation=page(number, f"Page {number}"), completion=Completion(plan=plan), outcome=outcome)


TURNS = (
    turn(1, ('note "A1"', "ok", "ok note"), ('fill p1.e1 "Anna"', "ok", 'ok fill p1.e1; new fields: "City"')),
    turn(2, ('fill p2.e1 "x"', "failed", "hidden: p2.e1"), ("submit p2.e2", "skipped", "skipped")),
)
NOTE, FILLED, FAILED = 'note "A1"', 'did fill p1.e1 "Anna"', 'did fill p2.e1 "x"'


def lines_of(notebook: Notebook, **options) -> list[str]:
    """What stands between the task and the present page."""
    text = notebook.prompt(TASK, TURNS, page(3, "Page 3"), **options)
    lines = text.split("\n")
    assert lines[0] == "task: Do it." and lines[-4:] == ["page 3: Page 3", "p3.e1 Name : text", "plan:", ""]
    return lines[1:-4]


@pytest.mark.parametrize(
    ("notebook", "wanted"),
    [
        (Notebook(), [NOTE, f'{FILLED} -> ok; new fields: "City"', f"{FAILED} -> hidden: p2.e1"]),
        (Notebook(memory="actions"), [NOTE, FAILED_WITH := f"{FAILED} -> hidden: p2.e1"]),
        (Notebook(memory="actions", feedback=False), [NOTE, FILLED, FAILED]),
        (Notebook(memory="feedback"), ['-> ok; new fields: "City"', "-> hidden: p2.e1"]),
        (Notebook(memory="none"), ["-> hidden: p2.e1"]),
        (Notebook(memory="none", feedback=False), []),
    ],
)
def test_each_switch_keeps_what_it_says(notebook, wanted) -> None:
    if wanted == [NOTE, FAILED_WITH]:
        wanted = [NOTE, FILLED, FAILED_WITH]
    assert lines_of(notebook) == wanted


def test_earlier_pages_are_shown_as_often_as_asked_for() -> None:
    assert lines_of(Notebook(memory="none", feedback=False, num_observations=2)) == [
        "earlier:",
        "page 2: Page 2",
        "p2.e1 Name : text",
        "now:",
    ]


def test_the_oldest_lines_give_way_and_notes_last() -> None:
    full = lines_of(Notebook())
    room = len(Notebook().prompt(TASK, TURNS, page(3, "Page 3")))
    shorter = lines_of(Notebook(), fits=lambda text: len(text) < room)
    assert shorter == [full[0], full[2]]
    assert lines_of(Notebook(), fits=lambda text: False) == []


def test_earlier_pages_give_way_before_any_line() -> None:
    notebook = Notebook(num_observations=2)
    room = len(notebook.prompt(TASK, TURNS, page(3, "Page 3")))
    assert lines_of(notebook, fits=lambda text: len(text) < room) == lines_of(Notebook())
    assert lines_of(notebook, fits=lambda text: False) == []


def test_a_note_that_was_not_taken_is_no_note() -> None:
    broken = turn(1, ('note "A12', "malformed", "a quotation mark is missing"))
    done = f'did note "A12 -> {broken.outcome.actions[0].note}'
    prompt = Notebook().prompt(TASK, (broken, TURNS[1]), page(3, "Page 3"))
    assert prompt.split("\n")[1] == done
    room = len(prompt)
    shorter = Notebook().prompt(TASK, (TURNS[0], broken), page(3, "Page 3"), fits=lambda text: len(text) < room - 40)
    assert NOTE in shorter.split("\n") and done not in shorter


def test_the_first_turn_reads_like_the_prompt_of_a_whole_plan() -> None:
    assert Notebook().prompt(TASK, (), page(1, "Page 1")) == render_prompt(TASK, page(1, "Page 1"))


def test_a_page_shows_passages_errors_and_what_is_out_of_sight() -> None:
    controls = (Control(ref="p1.e3", kind="link", name="Lamp"), Control(ref="p1.e4", kind="button", name="Send"))
    passages = (Passage(text="12 EUR", before="p1.e4"), Passage(text="The end"))
    seen = Observation(
        titles=("Shop",), controls=controls, passages=passages, errors=("Busy.",), num_above=2, num_below=1
    )
    assert render_prompt(TASK, seen).split("\n")[1:-2] == [
        "page 1: Shop",
        "error: Busy.",
        "(2 above)",
        "p1.e3 Lamp : link",
        "12 EUR",
        "p1.e4 Send : button",
        "The end",
        "(1 below)",
    ]


def test_feedback_that_memory_keeps_cannot_be_switched_off() -> None:
    with pytest.raises(ConfigError, match="Take actions"):
        Notebook(memory="full", feedback=False)
    with pytest.raises(ConfigError, match="num_observations is 0"):
        Notebook(num_observations=0)
