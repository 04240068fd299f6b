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

_FOLDER, WEIGHTS_FILE = "checkpoint", "model.safetensors"


def save_state(
    run_dir: Path,
    *,
    step: int,
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
) -> None:
    """Write the state after `step` steps. The previous state stays until the new one is complete."""
    with replace_folder(run_dir / _FOLDER) as folder:
        save_file(_trained_weights(model), folder / WEIGHTS_FILE)
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
    load_weights(model, folder / WEIGHTS_FILE)
    optimiser.load_state_dict(torch.load(folder / "optimiser.pt", weights_only=True))
    return int(record["step"])


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load weights that `save_state` wrote, in place. Raises CheckpointError where they are another model's."""
    stored = load_file(path)
    different = sorted(stored.keys() ^ _trained_weights(model).keys())
    if different:
        raise CheckpointError(
            f"'{path}' holds other weights than this model trains ({', '.join(different[:3])}). It was written with "
            "another checkpoint or adapter: give the same again, or delete the folder."
        )
    # What is left out are names that share a tensor, and frozen weights under an adapter.
    model.load_state_dict(stored, strict=False)


def _trained_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What a state holds of a model: each tensor once; where some are frozen, as under an adapter, only the others."""
    trained = {name for name, weight in model.named_parameters(remove_duplicate=False) if weight.requires_grad}
    is_partial = any(not weight.requires_grad for weight in model.parameters())
    kept: dict[str, torch.Tensor] = {}
    places: set[tuple[int, torch.Size]] = set()
    for name, value in model.state_dict().items():
        place = (value.data_ptr(), value.shape)
        if (is_partial and name not in trained) or place in places:
            continue
        places.add(place)
        kept[name] = value.detach().contiguous()
    return kept


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / "state.json").read_text())
        return {"step": int(record["step"]), "files": dict(record["files"])}
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"'{folder / 'state.json'}' cannot be read: the disk or a crash damaged it. "
            f"Delete '{folder}' to start this run again from its warm start."
        ) from None
