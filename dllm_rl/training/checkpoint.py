"""Training state on disk: weights, optimiser and step, written atomically and checked by hash, so that resume is exact.

Random state is not stored because none exists: every draw comes from a named stream (`dllm_rl.seeding`) and the step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from dllm_rl.errors import CheckpointError
from dllm_rl.files import previous_folder, replace_folder, sha256
from dllm_rl.training.provenance import differences
from dllm_rl.training.ranks import ALONE, Ranks
from dllm_rl.training.sharding import is_sharded, like, whole

_FOLDER, WEIGHTS_FILE = "checkpoint", "model.safetensors"
_UNKNOWN: Mapping[str, Any] = MappingProxyType({})


def save_state(
    run_dir: Path,
    *,
    step: int,
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    ranks: Ranks = ALONE,
    made_by: Mapping[str, Any] = _UNKNOWN,
) -> None:
    """Write the state after `step` steps. The previous state stays until the new one is complete.

    Args:
        made_by: What the run depends on, as plain data (`dllm_rl.training.provenance`).
        ranks: Processes that call this together. The first writes, and of a sharded model what is whole, so that any
            number of processes may go on.
    """
    weights = whole(trained_weights(model), is_kept=ranks.is_first)
    state = whole(optimiser.state_dict(), is_kept=ranks.is_first)
    if not ranks.is_first:
        return
    with replace_folder(run_dir / _FOLDER) as folder:
        save_file(weights, folder / WEIGHTS_FILE)
        torch.save(state, folder / "optimiser.pt")
        files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
        record = {"step": step, "files": files, "made_by": dict(made_by)}
        (folder / "state.json").write_text(json.dumps(record))


def load_state(
    run_dir: Path,
    *,
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    made_by: Mapping[str, Any] = _UNKNOWN,
) -> int:
    """Restore the newest complete state in place and return its number of steps; 0 where there is none.

    Raises CheckpointError where a file does not match its hash, and where the state says that it was made by another
    run than this one.
    """
    newest = run_dir / _FOLDER
    folder = next((path for path in (newest, previous_folder(newest)) if (path / "state.json").is_file()), None)
    if folder is None:
        return 0
    record = _record(folder)
    if differs := differences(record["made_by"], made_by):
        raise CheckpointError(
            f"'{folder}' is the state of a run with {differs}. To go on with it, give the same again; for a new run "
            "give another run_dir."
        )
    for name, digest in record["files"].items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            raise CheckpointError(
                f"'{folder / name}' does not match its recorded hash: the disk or a crash damaged it. "
                f"Delete '{folder}' to start this run again from its warm start."
            )
    load_weights(model, folder / WEIGHTS_FILE)
    # Every process reads all of it, so of what is large no process reads more than its part, and none on another's
    # device. The optimiser takes it to that of its weights.
    state = torch.load(folder / "optimiser.pt", weights_only=True, mmap=is_sharded(model), map_location="cpu")
    optimiser.load_state_dict(_in_parts(state, optimiser))
    return int(record["step"])


def _in_parts(state: dict[str, Any], optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The stored state of an optimiser, in the parts in which this one keeps its own."""
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]

    def part(value: Any, number: int) -> Any:
        is_of_weight = isinstance(value, torch.Tensor) and value.shape == weights[number].shape
        return like(value, weights[number]) if is_of_weight else value

    state["state"] = {
        number: {name: part(value, number) for name, value in own.items()} for number, own in state["state"].items()
    }
    if "masters" in state:
        state["masters"] = [part(value, number) for number, value in enumerate(state["masters"])]
    return state


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load weights that `save_state` wrote, in place. Raises CheckpointError where they are another model's."""
    stored, trained = load_file(path), trained_weights(model)
    different = sorted(stored.keys() ^ trained.keys())
    if different:
        raise CheckpointError(
            f"'{path}' holds other weights than this model trains ({', '.join(different[:3])}). It was written with "
            "another checkpoint or adapter: give the same again, or delete the folder."
        )
    # What is left out are names that share a tensor, and frozen weights under an adapter.
    model.load_state_dict({name: like(value, trained[name]) for name, value in stored.items()}, strict=False)


def trained_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What a state holds of a model: each tensor once; where some are frozen, as under an adapter, only the others."""
    names, once = dict(model.named_parameters(remove_duplicate=False)), dict(model.named_parameters())
    trained = {name for name, weight in names.items() if weight.requires_grad}
    is_partial = len(trained) < len(names)
    left_out = (names.keys() - once.keys()) | (model.state_dict().keys() - trained if is_partial else set())
    return {name: value.detach().contiguous() for name, value in model.state_dict().items() if name not in left_out}


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / "state.json").read_text())
        # States of older versions do not say what made them.
        made_by = dict(record.get("made_by", {}))
        return {"step": int(record["step"]), "files": dict(record["files"]), "made_by": made_by}
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"'{folder / 'state.json'}' cannot be read: the disk or a crash damaged it. "
            f"Delete '{folder}' to start this run again from its warm start."
        ) from None
