"""The doctor finds what is wrong with a machine; a template is a working plug-in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dllm_rl.errors import ConfigError
from experiments.cli.doctor import shadowed
from experiments.cli.templates import write_objective


def test_a_package_from_elsewhere_shadows_ours() -> None:
    home = Path("/project")
    locations = {"harness": home / "harness", "samplers": Path("/elsewhere/samplers")}
    assert shadowed(locations, home) == {"samplers": Path("/elsewhere/samplers")}


@pytest.mark.browser
def test_the_doctor_reports_every_part() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.cli", "doctor", "--json"], capture_output=True, text=True, check=False
    )
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert {"python", "packages", "torch", "browser", "loopback", "disk"} <= set(checks)
    assert checks["browser"]["state"] == "ok"
    assert checks["browser"]["found"].startswith("Chromium")
    assert done.returncode == any(check["state"] == "fail" for check in checks.values())


def test_a_new_objective_keeps_every_promise_before_it_is_changed(tmp_path) -> None:
    path = write_objective("my_method", tmp_path)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import my_method\n"
        "from dllm_rl import registry\n"
        "from dllm_rl.testing import check_objective\n"
        "assert registry.get('objective', 'my_method') is my_method.MyMethod\n"
        "assert check_objective(my_method.MyMethod())\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path.parent)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(ConfigError, match="exists already"):
        write_objective("my_method", tmp_path)
