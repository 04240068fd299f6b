"""`dllm-rl site`: what is said where no drawn task is accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.experiments.cli.test_cli import said

PAGE = """<!doctype html><title>Library</title>
<form action="/reserve"><label>Card number <input name="card" required pattern="[A-Z]{9}"></label>
<button>Reserve</button></form>"""


@pytest.mark.browser
def test_a_draft_that_the_site_refuses_says_why(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "index.html").write_text(PAGE)
    monkeypatch.chdir(tmp_path)
    code, _, errors = said(("site", "draft", "library", "--count", "2"), monkeypatch, capsys)
    assert code == 2
    assert 'accepted nothing that was drawn. Of {"Card number":' in errors
    assert "validation: Card number" in errors and "Write the tasks by hand" in errors
    assert not (tmp_path / "tasks.jsonl").exists()
