"""A package of a third party, installed: its four components are trained, reported and refused like ours."""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.packages import write_metadata
from tests.processes import Forked, command

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(__file__).parent / "third_party"
COMPONENTS = ("door", "geometric", "inwards", "digits")
# Where the guides in docs/ import from.
PUBLIC = {
    "dllm_rl.environment",
    "dllm_rl.errors",
    "dllm_rl.records",
    "dllm_rl.records.types",
    "dllm_rl.registry",
    "dllm_rl.seeding",
    "harness.rewards",
    "objectives",
    "samplers",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, installed as pip does it where pip can, and a user's preset."""
    folder = tmp_path_factory.mktemp("third_party")
    sources = shutil.copytree(PACKAGE, folder / "sources", ignore=shutil.ignore_patterns("__pycache__"))
    installed = folder / "installed"
    if importlib.util.find_spec("pip") and importlib.util.find_spec("setuptools"):
        alone = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
        pip = [sys.executable, "-m", "pip", "install", *alone, "--target", str(installed), str(sources)]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    else:
        shutil.copytree(sources / "door_codes", installed / "door_codes")
        write_metadata(sources / "pyproject.toml", installed)
    shutil.copy(PACKAGE / "preset.yaml", folder / "doors.yaml")
    return folder


def dllm_rl(place: Path, *arguments: str) -> tuple[int | None, str]:
    """Exit code of a command where the package is installed, and what it said."""
    process = Forked(
        command,
        *arguments,
        output=place / f"said{time.monotonic_ns()}",
        cwd=place,
        environment={"COLUMNS": "200"},
        paths=[place / "installed"],
    )
    text = process.end()
    return process.code, text


@pytest.mark.slow
def test_a_preset_of_its_own_trains_and_reports_all_four_components(place: Path) -> None:
    code, said = dllm_rl(place, "grid", "doors.yaml")
    assert code == 0, said
    run = place / "runs" / "doors"
    report = json.loads((run / "report.json").read_text())
    text = json.dumps(report)
    assert all(f'"{name}"' in text for name in COMPONENTS)
    assert [cell["id"] for cell in report["cells"]] == ["masked-geometric"]
    assert (run / "report.html").is_file()


def test_an_option_out_of_range_is_one_message_before_anything_runs(place: Path) -> None:
    code, said = dllm_rl(place, "grid", "doors.yaml", "reward.options.unopened=2", "--out", "wrong")
    assert (code, "Traceback" in said) == (2, False), said
    assert "reward 'digits': unopened=2.0: give a share of at least 0 and below 1" in said
    assert not (place / "wrong").exists()


def test_a_reward_without_a_version_is_refused_with_what_to_write(place: Path) -> None:
    module = place / "installed" / "door_codes" / "digits.py"
    whole = module.read_text()
    module.write_text(whole.replace("    version: ClassVar[int] = 1\n", ""))
    try:
        code, said = dllm_rl(place, "grid", "doors.yaml", "--dry-run")
    finally:
        module.write_text(whole)
    assert code == 2, said
    assert "does not declare version. Write `version: ClassVar[int] = 1`" in said


def test_it_imports_documented_names_only() -> None:
    guides = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    imported = [
        (node.module or "", alias.name)
        for path in sorted((PACKAGE / "door_codes").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    packages = {module.split(".")[0] for module in PUBLIC}
    ours = [(module, name) for module, name in imported if module.split(".")[0] in packages]
    assert ours
    for module, name in ours:
        assert module in PUBLIC
        assert name in guides, f"{module}.{name} is in no guide"
