"""Which GPU this machine has, whatever PyTorch makes of it. `scripts/install_torch.py` runs this file by its path."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_DEVICES = Path("/dev")


def gpu_vendor() -> str | None:
    """NVIDIA or AMD, by the system's devices or by what nvidia-smi lists; None where neither is seen."""
    if any(_DEVICES.glob("nvidia[0-9]*")):
        return "NVIDIA"
    # Under WSL2 there is no such device.
    program = shutil.which("nvidia-smi")
    if program:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)
        if listed.returncode == 0 and "GPU" in listed.stdout:
            return "NVIDIA"
    return "AMD" if (_DEVICES / "kfd").exists() else None
