"""What `dllm-rl new` writes works as it stands, keeps the public suite, and imports public names only."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.records.tasks import FieldResult, Outcome
from dllm_rl.session import Session
from dllm_rl.testing import check_objective, check_reward, check_sampler
from experiments.cli.new import FOLDERS, TEMPLATES, write_template
from tests.experiments.cli.test_cli import said

ROOT = Path(__file__).parents[3]


@pytest.fixture
def written(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kind of a template that is written, imported and registered as `my_own`."""
    load(request.param, write_template(request.param, "my_own", tmp_path), monkeypatch)
    return request.param


def load(kind: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Import and register a component of the name `my_own`, for the time of a test."""
    registry.discover(kind)
    monkeypatch.setitem(registry._REGISTRY, kind, dict(registry._REGISTRY[kind]))
    spec = importlib.util.spec_from_file_location(f"my_own_{kind}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)


@pytest.mark.parametrize("written", ["objective"], indirect=True)
def test_a_new_objective_keeps_every_promise(written: str) -> None:
    assert check_objective(registry.build(written, "my_own"))


@pytest.mark.parametrize("written", ["sampler"], indirect=True)
def test_a_new_sampler_keeps_every_promise(written: str) -> None:
    check_sampler(registry.get(written, "my_own"))


@pytest.mark.parametrize("written", ["environment"], indirect=True)
def test_the_gold_plans_of_a_new_environment_succeed_and_nothing_else_does(written: str) -> None:
    with Session(registry.build(written, "my_own", {"num_tasks": 3})) as session:
        tasks = session.tasks("val")
        assert len(tasks) == 3
        plans = [(task, session.gold_plan(task)) for task in tasks] + [(task, "") for task in tasks]
        assert [outcome.is_success for outcome in session.run_many(plans)] == [True] * 3 + [False] * 3


@pytest.mark.parametrize("written", ["reward"], indirect=True)
def test_a_new_reward_is_one_for_a_success_and_nothing_for_nothing(written: str) -> None:
    right = FieldResult(name="f", wanted=("a",), server=("a",), dom=("a",), is_correct=True, is_default=False)
    reward = registry.build(written, "my_own", {"near_miss": 0.25})
    outcomes = [Outcome(task_id="t", fields=(right,), is_submitted=is_submitted) for is_submitted in (True, False)]
    assert [reward(outcome) for outcome in (*outcomes, Outcome(task_id="t"))] == [1.0, 0.25, 0.0]
    assert check_reward(reward)


@pytest.mark.parametrize("written", TEMPLATES, indirect=True)
def test_a_template_declares_its_version_and_checks_its_options(written: str) -> None:
    assert registry.identity(written, "my_own")["version"] == 1
    with pytest.raises(ConfigError, match="no option of"):
        registry.build(written, "my_own", {"no_such_option": 1})


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_template_may_call_what_its_base_does(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataclass with slots is another class than the one that super() was compiled in."""
    path = write_template(kind, "my_own", tmp_path)
    above = "    version: ClassVar[int] = 1\n"
    method = "    def of_base(self):\n        return callable(super().__init__)\n"
    path.write_text(path.read_text().replace(above, f"{above}\n{method}"))
    load(kind, path, monkeypatch)
    assert registry.build(kind, "my_own").of_base()


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_template_is_in_house_style_and_imports_public_names(kind: str, tmp_path: Path) -> None:
    path = write_template(kind, "my_own", tmp_path)
    assert not re.findall(r"^(?:from|import) .*\b_\w+", path.read_text().replace("__future__", ""), re.MULTILINE)
    for command in (("check",), ("format", "--check")):
        ruff = [sys.executable, "-m", "ruff", *command, "--config", str(ROOT / "pyproject.toml"), str(path)]
        done = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    package = registry.KINDS[kind].package.split(".")
    assert (ROOT / FOLDERS[kind]).is_dir() and list(FOLDERS[kind].parts[: len(package)]) == package, "where it is found"
    with pytest.raises(ConfigError, match="exists already"):
        write_template(kind, "my_own", tmp_path)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_outside_of_a_checkout_the_entry_point_is_told(kind: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, errors = said(("new", kind, "my_own"), monkeypatch, capsys)
    assert code == 2 and "run this in a checkout of dllm_rl, or give --folder" in errors
    code, shown, _ = said(("new", kind, "my_own", "--folder", "."), monkeypatch, capsys)
    assert code == 0 and "registered already" not in shown
    (group,) = re.findall(r'\[project.entry-points."(dllm_rl\.\w+)"\]\n  my_own = "PACKAGE.my_own"', shown)
    assert group == registry.KINDS[kind].group
