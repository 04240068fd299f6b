"""Which tasks are left out: known for the same tasks in the same environment, and never because of a fault."""

from __future__ import annotations

import pytest
from rich.console import Console

from dllm_rl.environment import Unsolved
from dllm_rl.errors import HarnessError
from dllm_rl.session import Session
from experiments.design.config import build_session
from experiments.design.presets import load_preset
from experiments.run.folder import RunFolder
from experiments.run.self_check import checked_tasks, known_tasks

WRONG, LOST = Unsolved(reason="wrong"), Unsolved(reason="down", is_lost=True)


def preset(*overrides):
    return load_preset("ci", ["environment={name: episodes, options: {counts: {train: 8, val: 8}}}", *overrides])


@pytest.fixture
def check(monkeypatch, tmp_path):
    """Self-check a preset; what the environment answers, call by call, stands in `answers`. Returns ids by answer."""
    answers, asked = [], []

    def answer(session, tasks):
        asked.append([task.id for task in tasks])
        return {tasks[at].id: why for at, why in answers.pop(0).items()}

    monkeypatch.setattr(Session, "self_check", answer)

    def run(*given, chosen=None):
        answers[:] = given
        settings = chosen or preset()
        with build_session(settings.environment) as session:
            tasks = checked_tasks(settings, session, tmp_path, Console(quiet=True))
            assert known_tasks(settings, session, tmp_path) == tasks
        return [task.id for task in (*tasks.training, *tasks.evaluation)]

    run.asked = asked  # type: ignore[attr-defined]
    return run


def test_a_verdict_is_of_the_tasks_and_of_the_environment(check):
    every = check({})
    assert check() == every, "the same tasks were checked twice"
    shorter = preset("environment.options.max_turns=2")
    assert check({0: WRONG}, chosen=shorter) == every[1:]
    assert check() == every and check(chosen=shorter) == every[1:]


def test_what_was_lost_is_checked_again_and_is_no_verdict(check, tmp_path):
    with pytest.raises(HarnessError, match=r"1 of 12 tasks could not be checked.*down"):
        check({0: LOST, 1: WRONG}, {0: LOST})
    assert check.asked[1] == [check.asked[0][0]]
    assert RunFolder(tmp_path).self_check() == {}
    assert check({0: LOST, 1: WRONG}, {}) == [check.asked[0][0], *check.asked[0][2:]]
    assert list(RunFolder(tmp_path).self_check().values()) == [{check.asked[0][1]: "wrong"}]
