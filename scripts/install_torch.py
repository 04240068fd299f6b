"""Install PyTorch into this environment: the CPU build where no NVIDIA GPU is seen, which spares gigabytes.

A PyTorch that is here already is left alone, unless the variable TORCH asks for one. Run by `make setup`; needs nothing
but Python and pip.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import runpy
import subprocess
import sys
import urllib.request
from pathlib import Path

ASKED = os.environ.get("TORCH")
PIN = "torch==2.13.0"
ANY = "torch>=2.6"
# PyTorch's own index of CPU builds; on Linux the plain package brings CUDA libraries along.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PROBE_SECONDS = 10
gpu_vendor = runpy.run_path(str(Path(__file__).parents[1] / "experiments" / "run" / "gpu.py"))["gpu_vendor"]


def has_torch() -> bool:
    """Whether a usable PyTorch can be imported."""
    if importlib.util.find_spec("torch") is None:
        return False
    check = (
        "import torch; v = torch.__version__.split('.'); assert (int(v[0]), int(v[1])) >= (2, 6); torch.ones(2).sum()"
    )
    return subprocess.run([sys.executable, "-c", check], stderr=subprocess.DEVNULL, check=False).returncode == 0


def is_index_reachable() -> bool:
    """Whether PyTorch's CPU index answers soon; pip itself would retry for minutes."""
    try:
        with urllib.request.urlopen(f"{CPU_INDEX}/torch/", timeout=PROBE_SECONDS) as answer:
            return answer.status == 200
    except (OSError, ValueError):
        return False


def pip_install(*arguments: str) -> bool:
    """Run pip; whether it succeeded."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *arguments]
    print("+ pip install", *arguments, flush=True)
    return subprocess.run(command, check=False).returncode == 0


def attempts(vendor: str | None) -> list[tuple[str, ...]]:
    """Arguments of pip to try one after another: the build for this machine, then the plain package.

    Args:
        vendor: Of the GPU that this machine has, if any.
    """
    wanted: list[tuple[str, ...]] = [(ASKED,)] if ASKED else [(PIN,), (ANY,)]
    if vendor == "NVIDIA":
        # To pip, a build without CUDA is the same version.
        return [(*attempt, "--force-reinstall") for attempt in wanted] if is_cpu_build() else wanted
    has_index = platform.system() == "Linux" and is_index_reachable()
    return [(*wanted[0], "--index-url", CPU_INDEX), *wanted] if has_index else wanted


def is_cpu_build() -> bool:
    """Whether the PyTorch that is here was built without CUDA."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("torch").endswith("+cpu")
    return False


def main() -> int:
    """Install the PyTorch that is asked for, or any that is supported where there is none."""
    if has_torch() and not ASKED:
        print("PyTorch is here already.")
        return 0
    vendor = gpu_vendor()
    if vendor == "AMD":
        print("An AMD GPU is seen. PyTorch's build for it (ROCm) is installed by hand: https://pytorch.org.")
    if any(pip_install(*attempt) and has_torch() for attempt in attempts(vendor)):
        return 0
    print(
        "PyTorch could not be installed. Install it by hand (https://pytorch.org), then run make again.",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
