"""Episodes beside BrowserGym: what its worker does on each task, and how rounds become a table."""

from __future__ import annotations

import pytest

from benchmarks.beside_browsergym import OURS, TASKS, THEIRS, table
from benchmarks.browsergym_worker import actions

TREE = "RootWebArea 'Login'\n\t[12] textbox '' \n\t[13] textbox ''\n\t[14] button 'Login'"


@pytest.mark.parametrize(
    ("task", "goal", "made"),
    [
        ("click-test", "Click the button.", ['click("14")']),
        ("enter-text", 'Enter "Ann" into the text field and press Submit.', ['fill("12", "Ann")', 'click("14")']),
        (
            "login-user",
            'Enter the username "ann" and the password "x9" into the text fields and press login.',
            ['fill("12", "ann")', 'fill("13", "x9")', 'click("14")'],
        ),
    ],
)
def test_an_episode_is_solved_by_what_its_page_asks_for(task: str, goal: str, made: list[str]) -> None:
    assert actions(task, goal, TREE) == made


def test_times_are_of_the_same_round_and_their_median_is_told() -> None:
    def one_round(theirs: float, ours: float) -> dict[str, dict[str, list[float]]]:
        seconds = dict.fromkeys(THEIRS, theirs) | dict.fromkeys(OURS, ours)
        return {name: {task: [value] * 2 for task in TASKS} for name, value in seconds.items()}

    rows = table([one_round(2.0, 1.0), one_round(8.0, 1.0), one_round(3.0, 1.0)])
    own = rows["ours, page, fast"]
    assert (own["times"], own["rounds"], own["seconds"]) == (3.0, [2.0, 8.0, 3.0], 1.0)
    assert rows["BrowserGym without delays"]["times"] == 1.0
    assert own["tasks"] == dict.fromkeys(TASKS, 3.0)
