"""The package's public names load on use, and the page that introduces them runs from top to bottom."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import dllm_rl
from dllm_rl import registry

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python.md"


def test_every_public_name_is_there() -> None:
    for name in dllm_rl.__all__:
        assert getattr(dllm_rl, name).__name__ == name
    assert set(dllm_rl.__all__) <= set(dir(dllm_rl))
    with pytest.raises(AttributeError, match="no attribute 'load_polcy'"):
        dllm_rl.load_polcy  # noqa: B018


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "'torch', 'pydantic', 'transformers', 'playwright'"
    script = f"import sys, dllm_rl; dllm_rl.DllmRlError; print([name for name in ({heavy}) if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


@pytest.mark.browser
def test_the_code_of_the_readme_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(
        r"^```python\n(.*?)^```$", (PAGE.parents[1] / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    exec(compile(code, "README.md", "exec", dont_inherit=True), {"__name__": "__main__"})
    told = re.findall(r" \d\.\d+ \S", capsys.readouterr().out)
    assert len(told) >= 8, "two tasks, four rollouts each"


@pytest.mark.browser
def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    # What the page registers is forgotten afterwards.
    registry.names("reward")
    monkeypatch.setitem(registry._REGISTRY, "reward", dict(registry._REGISTRY["reward"]))
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    exec(compile(code, str(PAGE), "exec", dont_inherit=True), {"__name__": "__main__"})
    said = capsys.readouterr().out
    assert re.search(r"^reward \d\.\d\d: ", said, re.MULTILINE)
    assert "'ratio_dev_u0': 0.0" in said, "the first update is on policy"
    assert "of 6 rollouts succeeded" in said
    assert (tmp_path / "runs/first/policy/digest.json").is_file()
