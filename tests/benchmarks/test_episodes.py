"""The comparison of episodes: at equal forwards, and paired by task."""

from __future__ import annotations

import pytest

from benchmarks.episodes import CONDITIONS, Played, difference, summary


def played(task: str, *, success: bool, forwards: int, actions: int = 4) -> Played:
    return Played(
        task_id=task,
        kind=task[0],
        is_success=success,
        is_near_miss=not success,
        num_turns=2 if success else 6,
        num_forwards=forwards,
        num_actions=actions,
        ending="finished" if success else "turns",
    )


FIRST = [
    played("a1", success=True, forwards=30),
    played("a1", success=True, forwards=90),
    played("b2", success=False, forwards=10),
    played("b2", success=True, forwards=30),
]
OTHER = [
    played("a1", success=True, forwards=30),
    played("a1", success=True, forwards=30),
    played("b2", success=True, forwards=30),
    played("b2", success=True, forwards=90),
]


def test_successes_that_took_more_forwards_do_not_count_within_a_budget() -> None:
    found = summary(FIRST, None)
    assert (found["success"], found["within 20 forwards"]) == (75.0, 0.0)
    assert (found["within 40 forwards"], found["within 160 forwards"]) == (50.0, 75.0)
    assert (found["turns of a success"], found["turns"], found["forwards"]) == (2.0, 3.0, 40.0)
    assert found["actions a success"] == pytest.approx(16 / 3)
    assert found["success by kind"] == {"a": 100, "b": 50}
    assert found["endings"] == {"finished": 0.75, "turns": 0.25}


def test_differences_are_of_task_means() -> None:
    """Of a1 0 and of b2 50 points: their mean, and an interval of two tasks."""
    middle, low, high = difference(OTHER, FIRST, None)
    assert middle == 25.0 and low < 0 < 50 < high and high - middle == pytest.approx(middle - low, abs=0.2)
    assert difference(OTHER, FIRST, 40)[0] == pytest.approx((50 + 0) / 2)
    assert summary(OTHER, FIRST)["difference"][0] == 25.0


def test_conditions_can_be_built() -> None:
    assert set(CONDITIONS) == {"memory", "writing", "roles"}
    changed = {key for own in CONDITIONS.values() for changes in own.values() for key in changes}
    assert changed == {"notebook", "repair", "team"}
