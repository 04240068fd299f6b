"""The laboratory: toys whose gold answer scores 1, policies that never vary, a grid in seconds, its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dllm_rl.errors import ConfigError
from dllm_rl.records.tasks import SPLITS
from experiments.analysis.collapse import Alarm
from experiments.cli import app
from experiments.design.config import Component, build_session
from experiments.design.grid import build_cells
from experiments.design.presets import load_preset
from experiments.run.policies import load_toy
from studies.lab.__main__ import lab
from studies.lab.table import Run, markdown
from tests.frozen import frozen_objectives

TOYS = ("toy_sort", "toy_copy")


@pytest.mark.parametrize("name", TOYS)
def test_the_gold_answer_scores_one_and_nothing_scores_zero(name: str) -> None:
    with build_session(Component(name=name)) as session:
        seen: set[tuple[str, str]] = set()
        for split in SPLITS:
            tasks = list(session.tasks(split))
            answers = {(task.instruction, session.gold_plan(task)) for task in tasks}
            assert len(answers) == len(tasks) and not seen & answers
            seen |= answers
            assert session.self_check(tasks) == {}
            assert session.score_many([(task, session.gold_plan(task)) for task in tasks]) == [1.0] * len(tasks)
            assert session.score_many([(task, "") for task in tasks]) == [0.0] * len(tasks)


def test_wrong_answers_are_judged_by_their_parts() -> None:
    with build_session(Component(name="toy_sort")) as session:
        (task, *_) = session.tasks("train")
        gold = session.gold_plan(task)
        (short,) = session.run_many([(task, gold[:3])])
        assert not short.is_submitted and not short.is_success
        assert session.score_many([(task, gold[:3])]) == [3 / 5]
    with build_session(Component(name="toy_copy")) as session:
        (task, *_) = session.tasks("train")
        first, second, submit = session.gold_plan(task).split("\n")
        outcomes = session.run_many([(task, "\n".join([first, second])), (task, "\n".join([first, submit, second]))])
        assert outcomes[0].is_near_miss and not outcomes[0].is_submitted
        assert outcomes[1].is_submitted and not outcomes[1].all_correct


def test_a_toy_policy_is_the_same_every_time_and_says_what_it_takes() -> None:
    first, second = (load_toy("toy:toy_sort", {"family": "autoregressive"}) for _ in range(2))
    assert first.model is not second.model
    states = first.model.state_dict(), second.model.state_dict()
    assert all(states[0][name].equal(states[1][name]) for name in states[0])
    text = "task: 52913\nplan:\n"
    ids = first.prompts([text], [0]).ids[0]
    assert first.tokenizer.decode(ids) == text
    with pytest.raises(ConfigError, match="Did you mean 'toy_sort'"):
        load_toy("toy:toy_srt", {"family": "masked"})
    with pytest.raises(ConfigError, match="takes facts"):
        load_toy("toy:toy_sort", {"family": "block"})


def test_collapse_lab_holds_every_objective_of_the_masked_family_whose_numbers_are_frozen() -> None:
    cells = build_cells(load_preset("collapse_lab"))
    defined = {name for name, numbers in frozen_objectives().items() if "masked" in numbers}
    assert {cell.objective.name for cell in cells} == defined
    assert {cell.train["learning_rate"] for cell in cells} == {3e-4, 1e-3}
    assert len(cells) == 2 * len(defined)


def test_the_table_says_what_learned_what_fell_and_what_did_neither() -> None:
    common = {"policy": "slow", "warm_start": 0.6, "warm_greedy": 0.9, "greedy": 0.8, "ratio_max": 2.0}
    common |= {"grad_norm_max": 0.5, "entropy": 0.4, "is_collapsed": False, "alarms": ()}
    runs = [
        Run(objective="good", reward=0.8, **common),
        Run(objective="good", reward=0.62, **common),
        Run(objective="bad", reward=0.2, **{**common, "alarms": (alarm("faults", 4), alarm("cusum", 9))}),
        Run(objective="fallen", reward=0.65, **{**common, "is_collapsed": True, "alarms": (alarm("faults", 7),)}),
        Run(objective="idle", reward=0.6, **{**common, "alarms": (alarm("cusum", 12),)}),
    ]
    text = markdown(runs)
    assert "| good | 0.71 (0.80) / 2 / 0.5 / 0.40 | learns 1/2, does not learn 1/2 |" in text
    assert [run.fate for run in runs[2:]] == ["collapses", "collapses", "does not learn"]
    assert "warm start: slow 0.60 (0.90)." in text
    assert "Known non-learners here: bad, fallen, idle." in text
    assert "| faults | 2 | 5.5 |  |  |" in text and "| cusum |  |  | 1 | 12 |" in text
    assert text.endswith("| none | 0 | | 2 | |\n")


def alarm(detector: str, step: int) -> Alarm:
    return Alarm(detector=detector, signal="reward", severity="warning", onset=1, raised=step, message="")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_grid_on_the_toy_runs_resumes_and_is_tabled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["objectives=[grpo,mdpo]", "policies=[rate_1e-3]", "seeds=[0]", "train.steps=2", "evaluation.max_tasks=4"]
    first, again = (_said("grid", "collapse_lab", *small, "--out", str(tmp_path)) for _ in range(2))
    assert "0 are finished already" in first and "3 are finished already" in again
    capsys.readouterr()
    lab(tmp_path)
    table = capsys.readouterr().out
    assert "| mdpo |" in table and table == (tmp_path / "lab.md").read_text()
    judged = json.loads((tmp_path / "report.json").read_text())["cells"]
    assert {cell["objective"] for cell in judged} == {"grpo", "mdpo"}
    cited = _said("cite", str(tmp_path))
    assert "% objective mdpo" in cited and "He, Haoyu" in cited and "espo" not in cited


def _said(*command: str) -> str:
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    return done.output
