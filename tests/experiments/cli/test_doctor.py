"""The doctor finds what is wrong with a machine; a template is a working plug-in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cli.doctor import shadowed


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
