"""A recorded rollout is run again: the same outcome is found to be the same, and a forged record is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dllm_rl.episodes import TOO_LONG, Modes, oracle, play, recorded
from dllm_rl.errors import ConfigError
from dllm_rl.records.tasks import Ending, Task
from experiments.cli.replay import find_rollout, replay_rollout
from experiments.design.config import Component, build_session
from experiments.run.results import write_rows
from harness.rewards import Success
from harness.sites import make_tasks

TASK: Task = make_tasks("train", count=360)[1]


def write(path: Path, **row: object) -> Path:
    record = {"step": 2, "row": 5, "task_id": TASK.id, "plan": "click p9.e9", "fault": "agent", "near_miss": False}
    path.write_text(json.dumps({**record, **row}) + "\n")
    return path


@pytest.mark.browser
def test_a_replay_says_whether_the_outcome_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    true = write(tmp_path / "true.jsonl", reward=0.0, success=False, submitted=False)
    assert replay_rollout(true, "2.5", out=tmp_path / "out", is_headless=True) == 0
    said = capsys.readouterr().out
    assert "not found: p9.e9" in said
    assert "the outcome is the recorded one" in said
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".png", ".zip"]
    forged = write(tmp_path / "forged.jsonl", reward=1.0, success=True, submitted=True)
    assert replay_rollout(forged, "2.5", out=tmp_path / "out", is_headless=True) == 1
    said = capsys.readouterr().out
    assert "NOT the recorded one" in said
    assert "reward: was 1.0, is 0.0" in said


def test_a_training_rollout_runs_as_its_environment_says(tmp_path: Path) -> None:
    assert find_rollout(write(tmp_path / "a.jsonl"), "2.5").executor is None


@pytest.mark.parametrize(
    ("rollout", "message"), [("2.6", "expected STEP.ROW"), ("x", "expected STEP.ROW")], ids=["absent", "no number"]
)
def test_a_rollout_that_is_not_there(tmp_path: Path, rollout: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_rollout(write(tmp_path / "a.jsonl"), rollout)


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run folder"):
        find_rollout(tmp_path / "nothing", "0")


def test_rows_of_an_evaluation_run_under_the_settings_that_they_state(tmp_path: Path) -> None:
    row = {"task_id": TASK.id, "mode": "greedy", "sample": 0, "plan": "", "reward": 0.0}
    environment = {"name": "forms", "options": {"design": "newer", "obstacles": ["second_button"]}}
    settings = {"environment": environment, "reward": {"name": "outcome", "options": {}}}
    write_rows(tmp_path / "stated.parquet", [row], settings=settings, cell="builtin:masked", seed=0, stage="eval")
    found = find_rollout(tmp_path / "stated.parquet", "0")
    assert (found.environment.model_dump(), found.reward.name) == (environment, "outcome")


@pytest.mark.browser
def test_an_episode_comes_to_what_it_came_to_turn_by_turn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One of several turns, and one that ended at a page that its policy could not read."""
    environment = {"name": "episodes", "options": {"kinds": ["code"], "difficulties": [1], "counts": {"train": 1}}}
    settings = {"environment": environment, "reward": {"name": "outcome", "options": {}}}
    with build_session(Component(**environment)) as session:
        tasks, modes = session.tasks("train"), Modes(executor="trusted")
        (whole,) = play(session, Success(), tasks, oracle(session), modes)
        (cut,) = play(session, Success(), tasks, recorded([[whole.turns[0].completion.plan]], TOO_LONG), modes)
    assert (len(whole.turns), cut.outcome.ending) == (3, Ending.TOO_LONG)
    rows = [rollout.to_row(mode="sampled", sample=at) | {"num_tokens": 30} for at, rollout in enumerate((whole, cut))]
    labels = {"cell": "c", "policy": "p", "objective": "", "role": "", "seed": 0, "stage": "eval"}
    write_rows(tmp_path / "rows.parquet", rows, settings=settings, **labels)
    for number in ("0", "1"):
        code = replay_rollout(tmp_path / "rows.parquet", number, out=tmp_path / "replay", is_headless=True)
        assert code == 0, capsys.readouterr().out
