"""Guides followed by their words: what a page lets the reader write and run does what the page says."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from dllm_rl import registry
from dllm_rl.session import Session
from experiments.analysis.collapse.series import MIN_TREND_STEPS, window_of
from experiments.design.presets import load_preset
from experiments.run.recipe import load_recipe, refuse_wrong_stages
from experiments.run.results import write_rows
from tests.experiments.cli.test_cli import said

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.browser
def test_the_page_of_a_site_of_ones_own_leads_to_a_grid(tmp_path: Path, monkeypatch, capsys) -> None:
    page = (DOCS / "your_site.md").read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "workshop").mkdir()
    for name, text in re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(text)
    (task,) = re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "tasks.jsonl").write_text(task * 5)
    (listed,) = re.findall(r"^```\n(/\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    code, shown, _ = said(("site", "try", "workshop", "--tasks", "tasks.jsonl"), monkeypatch, capsys)
    assert code == 0, shown
    for line in listed.splitlines():
        assert line.strip() in shown
    code, _, errors = said(("grid", "workshop.yaml", "--dry-run"), monkeypatch, capsys)
    assert code == 2 and "checkpoint 'runs/start/autoregressive' was given, and this folder does not exist" in errors
    recipe = load_recipe("start.yaml")
    refuse_wrong_stages(recipe)
    for stage in recipe.families:
        shutil.copytree(DOCS.parent / "dllm_rl" / "checkpoints" / stage, tmp_path / "runs" / "start" / stage)
    code, shown, errors = said(("grid", "workshop.yaml", "--dry-run"), monkeypatch, capsys)
    assert code == 0, errors
    assert "masked-espo seed 0" in shown


def test_the_first_commands_of_the_ten_minutes_answer(tmp_path: Path, monkeypatch, capsys) -> None:
    page = (DOCS / "ten_minutes.md").read_text()
    monkeypatch.chdir(tmp_path)
    for command, expected in (
        ("dllm-rl", "dllm-rl doctor"),
        ("dllm-rl grid quick --dry-run", "One seed can never show an improvement"),
    ):
        assert re.search(rf"^{command}\b", page, re.MULTILINE)
        code, shown, errors = said(tuple(command.split()[1:]), monkeypatch, capsys)
        assert code == 0, errors
        assert expected in shown


def test_the_page_of_rewards_leads_from_recorded_plans_to_an_audited_judge(tmp_path: Path, monkeypatch, capsys) -> None:
    """Its commands in their order on a toy, with rollouts in place of the evaluations that need a browser."""
    page = (DOCS / "rewards.md").read_text()
    monkeypatch.chdir(tmp_path)
    for split, num_tasks, table in re.findall(
        r"^dllm-rl eval .*--split (\w+) --max-tasks (\d+).* --out (\S+)", page, re.MULTILINE
    ):
        write_plans(tmp_path / table, split, int(num_tasks))
    commands = re.findall(r"^dllm-rl (judge [^#\n]*)", page, re.MULTILINE)
    verbs = [command.split()[1] for command in commands]
    assert verbs == [*["collect"] * 3, "damage", "train", "audit", "audit", "embedder", "audit"]
    printed: list[str] = []
    for command, verb in zip(commands, verbs, strict=True):
        toy = ("--environment", "toy_copy") if verb in ("collect", "damage", "embedder") else ()
        code, shown, errors = said((*shlex.split(command), *toy), monkeypatch, capsys)
        assert code == 0 and "no evidence" not in errors, f"{command}: {errors}"
        printed.append(shown)
    ((rate, low, high),) = (
        map(float, found) for found in re.findall(r"corrected ([\d.]+) % \(([\d.]+) to ([\d.]+) %\)", "".join(printed))
    )
    known = [json.loads(line)["success"] for line in (tmp_path / "other.jsonl").read_text().splitlines()]
    assert low <= rate <= high and low <= 100 * sum(known) / len(known) <= high
    # No file is asked about that the judge has learned from.
    learned = re.search(r"judge train (\S+)", page)
    assert learned and all(learned[1] not in command for command in commands if "audit" in command)
    ((preset, steps),) = re.findall(r"^dllm-rl train (\w+) .*train\.steps=(\d+).*on_alarm=stop", page, re.MULTILINE)
    # The alarm compares with the first two windows of a run.
    load_preset(preset)
    assert int(steps) >= MIN_TREND_STEPS and int(steps) >= 4 * window_of(int(steps))


def write_plans(path: Path, split: str, num_tasks: int) -> None:
    """Rollouts of a toy: right, wrong, and not submitted."""
    with Session(registry.build("environment", "toy_copy")) as session:
        rows = []
        for task in session.tasks(split)[:num_tasks]:
            gold = session.gold_plan(task)
            plans = (gold, gold.replace(task.gold[0].wanted[0], "Zoe"), "\n".join(gold.split("\n")[:-1]))
            rows += [{"task_id": task.id, "plan": plan, "seed": 0} for plan in plans]
    write_rows(path, rows, cell="toy")
