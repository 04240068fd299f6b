"""Install PyTorch into this environment: the CPU build where no GPU is seen, which spares gigabytes of CUDA libraries.

A PyTorch that is here already is left alone. Run by `make setup`; needs nothing but Python and pip.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

PIN = os.environ.get("TORCH", "torch==2.13.0")
ANY = "torch>=2.6"
# PyTorch's own index of CPU builds; on Linux the plain package brings CUDA libraries along.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PROBE_SECONDS = 10


def has_torch() -> bool:
    """Whether a usable PyTorch can be imported."""
    if importlib.util.find_spec("torch") is None:
        return False
    check = (
        "import torch; v = torch.__version__.split('.'); assert (int(v[0]), int(v[1])) >= (2, 6); torch.ones(2).sum()"
    )
    return subprocess.run([sys.executable, "-c", check], stderr=subprocess.DEVNULL, check=False).returncode == 0


def has_gpu() -> bool:
    """Whether an NVIDIA or AMD GPU is seen."""
    if Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists():
        return True
    program = shutil.which("nvidia-smi")
    return bool(program) and subprocess.run([program, "-L"], capture_output=True, check=False).returncode == 0


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


def main() -> int:
    """Try the CPU build, then the plain pin, then any supported version."""
    if has_torch():
        print("PyTorch is here already.")
        return 0
    attempts: list[tuple[str, ...]] = [(PIN,), (ANY,)]
    if platform.system() == "Linux" and not has_gpu() and is_index_reachable():
        attempts.insert(0, (PIN, "--index-url", CPU_INDEX))
    if any(pip_install(*attempt) and has_torch() for attempt in attempts):
        return 0
    print(
        "PyTorch could not be installed. Install it by hand (https://pytorch.org), then run make again.",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
