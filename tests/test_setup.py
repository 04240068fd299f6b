"""`make`: a PyTorch that is asked for is installed, and an environment of one's own is not removed."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def made(target: str, venv: Path, *settings: str) -> str:
    """What make would do, where everything was set up a moment ago."""
    for name in ("venv", "torch", "project", "chromium"):
        (venv / ".stamps").mkdir(parents=True, exist_ok=True)
        (venv / ".stamps" / name).touch()
    command = ["make", "-n", target, f"VENV={venv}", *settings]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_a_pytorch_that_is_asked_for_is_installed_over_the_one_that_is_there(tmp_path: Path) -> None:
    assert "install_torch" not in made("setup", tmp_path)
    assert "install_torch" in made("setup", tmp_path, "TORCH=torch==2.9.1")


def test_an_environment_of_ones_own_is_not_removed(tmp_path: Path) -> None:
    assert str(tmp_path) not in made("clean", tmp_path)


@pytest.mark.parametrize(
    ("asked", "vendor", "is_cpu", "expected"),
    [
        (None, None, False, [("torch==2.13.0", "--index-url", "CPU"), ("torch==2.13.0",), ("torch>=2.6",)]),
        (None, "AMD", False, [("torch==2.13.0", "--index-url", "CPU"), ("torch==2.13.0",), ("torch>=2.6",)]),
        (None, "NVIDIA", False, [("torch==2.13.0",), ("torch>=2.6",)]),
        ("torch==2.9.1", None, True, [("torch==2.9.1", "--index-url", "CPU"), ("torch==2.9.1",)]),
        ("torch==2.9.1", "NVIDIA", True, [("torch==2.9.1", "--force-reinstall")]),
        ("torch==2.9.1", "NVIDIA", False, [("torch==2.9.1",)]),
    ],
)
def test_the_build_is_that_for_this_machine(monkeypatch, asked, vendor, is_cpu, expected) -> None:
    script = _script()
    monkeypatch.setattr(script, "ASKED", asked)
    monkeypatch.setattr(script, "CPU_INDEX", "CPU")
    monkeypatch.setattr(script, "is_index_reachable", lambda: True)
    monkeypatch.setattr(script, "is_cpu_build", lambda: is_cpu)
    monkeypatch.setattr(script.platform, "system", lambda: "Linux")
    assert script.attempts(vendor) == expected


@pytest.mark.parametrize(("asked", "tried"), [(None, []), ("torch==2.9.1", [("torch==2.9.1",)])])
def test_a_pytorch_that_is_here_stays_unless_another_is_asked_for(monkeypatch, asked, tried) -> None:
    script, done = _script(), []
    monkeypatch.setattr(script, "ASKED", asked)
    monkeypatch.setattr(script, "has_torch", lambda: True)
    monkeypatch.setattr(script, "is_index_reachable", lambda: False)
    monkeypatch.setattr(script, "gpu_vendor", lambda: None)
    monkeypatch.setattr(script, "pip_install", lambda *words: done.append(words) or True)
    assert script.main() == 0 and done == tried


def _script():
    spec = importlib.util.spec_from_file_location("install_torch", ROOT / "scripts" / "install_torch.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
