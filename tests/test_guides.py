"""Guides followed by their words: what a page lets the reader write and run does what the page says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from experiments.run.recipe import load_recipe, refuse_wrong_stages
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
    assert code == 2 and "checkpoint 'runs/start/autoregressive' was given, and there is no such folder here" in errors
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
