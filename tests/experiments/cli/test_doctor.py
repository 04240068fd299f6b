"""The doctor finds what is wrong with a machine; a template is a working plug-in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cli.doctor import gpu_check, memory_check, shadowed, shared_memory_check
from experiments.run import gpu


def test_a_package_from_elsewhere_shadows_ours() -> None:
    home = Path("/project")
    locations = {"harness": home / "harness", "samplers": Path("/elsewhere/samplers")}
    assert shadowed(locations, home) == {"samplers": Path("/elsewhere/samplers")}


def test_a_gpu_that_this_pytorch_cannot_use_is_told() -> None:
    assert gpu_check([], vendor=None, build="2.9+cpu").found == "none; the CPU is used"
    assert "cuda:1 B, 80 GB" in gpu_check(["A, 24 GB", "B, 80 GB"], vendor="NVIDIA", build="2.9").found
    unusable = gpu_check([], vendor="NVIDIA", build="2.9+cpu")
    assert (unusable.state, "2.9+cpu cannot use it" in unusable.found) == ("warn", True)


@pytest.mark.parametrize(("listed", "vendor"), [("GPU 0: A\n", "NVIDIA"), ("No devices were found\n", None)])
def test_a_gpu_without_a_device_file_is_seen_and_an_absent_one_is_not(tmp_path, monkeypatch, listed, vendor) -> None:
    """As under WSL2. Devices that this machine has are hidden."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{listed}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(gpu, "_DEVICES", tmp_path)
    assert gpu.gpu_vendor() == vendor
    (tmp_path / "kfd").touch()
    assert gpu.gpu_vendor() == (vendor or "AMD")
    (tmp_path / "nvidia1").touch()
    assert gpu.gpu_vendor() == "NVIDIA"


def test_too_little_memory_is_told() -> None:
    assert memory_check(4.0, 1.5).found == "4.0 GB available, room for 2 workers"
    assert memory_check(1.0, 1.5).state == "warn"


def test_the_shared_memory_of_a_plain_container_is_told() -> None:
    small = shared_memory_check(64.0)
    assert (small.state, "--shm-size" in small.advice) == ("warn", True)
    assert shared_memory_check(1000.0).state == "ok"


@pytest.mark.browser
def test_the_doctor_reports_every_part() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.cli", "doctor", "--json"], capture_output=True, text=True, check=False
    )
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert {"python", "versions", "packages", "torch", "gpu", "memory", "loopback", "disk"} <= set(checks)
    assert checks["browser sandbox"]["state"] == ("warn" if os.geteuid() == 0 else "ok")
    assert checks["browser"]["state"] == "ok"
    assert checks["browser"]["found"].startswith("Chromium")
    assert done.returncode == any(check["state"] == "fail" for check in checks.values())
