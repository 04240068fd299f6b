"""Training state on disk: weights, optimiser and step, written atomically and checked by hash, so that resume is exact.

Random state is not stored because none exists: every draw comes from a named stream (`dllm_rl.seeding`) and the step.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from dllm_rl.errors import CheckpointError
from dllm_rl.files import replace_folder, sha256

_FOLDER = "checkpoint"


def save_state(
    run_dir: Path,
    *,
    step: int,
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
) -> None:
    """Write the state after `step` steps. The previous state stays until the new one is complete."""
    weights = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    with replace_folder(run_dir / _FOLDER) as folder:
        save_file(weights, folder / "model.safetensors")
        torch.save(optimiser.state_dict(), folder / "optimiser.pt")
        record = {"step": step, "files": {path.name: sha256(path) for path in sorted(folder.iterdir())}}
        (folder / "state.json").write_text(json.dumps(record))


def load_state(run_dir: Path, *, model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Restore the newest complete state in place and return its number of steps; 0 where there is none.

    Raises CheckpointError where a file does not match its hash.
    """
    folder = next((run_dir / n for n in (_FOLDER, _FOLDER + ".old") if (run_dir / n / "state.json").is_file()), None)
    if folder is None:
        return 0
    record = _record(folder)
    for name, digest in record["files"].items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            raise CheckpointError(
                f"'{folder / name}' does not match its recorded hash: the disk or a crash damaged it. "
                f"Delete '{folder}' to start this run again from its warm start."
            )
    model.load_state_dict(load_file(folder / "model.safetensors"))
    optimiser.load_state_dict(torch.load(folder / "optimiser.pt", weights_only=True))
    return int(record["step"])


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / "state.json").read_text())
        return {"step": int(record["step"]), "files": dict(record["files"])}
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"'{folder / 'state.json'}' cannot be read: the disk or a crash damaged it. "
            f"Delete '{folder}' to start this run again from its warm start."
        ) from None
