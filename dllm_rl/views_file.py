"""Views on disk, so that what a step scored can be scored again later: by its checkpoint, or by another policy.

A resumed run needs no file: it draws the views of a step anew from the stream ("masks", step, u), and they are the
same. The file is for looking: which masks gave this ratio, what another model says of the same corrupted canvases.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dllm_rl.errors import CheckpointError
from dllm_rl.types import Views

VIEWS_FILE = "views.safetensors"
_LABELS = ("kind", "read", "flow_law")


def save_views(path: Path, views: Sequence[Views]) -> None:
    """Write the views of the inner steps of one batch, in order."""
    # Clones, since views share memory with one another and safetensors stores none twice.
    tensors = {
        f"{inner}/{item.name}": value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for inner, drawn in enumerate(views)
        for item in fields(Views)
        if isinstance(value := getattr(drawn, item.name), Tensor)
    }
    labels = [{name: getattr(drawn, name) for name in _LABELS} for drawn in views]
    save_file(tensors, path, metadata={"views": json.dumps(labels)})


def load_views(path: Path) -> list[Views]:
    """Read what `save_views` wrote. Raises CheckpointError where the file is missing or of another kind."""
    if not path.is_file():
        raise CheckpointError(f"no views at '{path}'; a run keeps them with train.save_views=true.")
    with safe_open(path, framework="pt") as file:
        stored = (file.metadata() or {}).get("views")
        if stored is None:
            raise CheckpointError(f"'{path}' holds no views; expected a file written by save_views.")
        found = []
        for inner, labels in enumerate(json.loads(stored)):
            names = [name for name in file.keys() if name.startswith(f"{inner}/")]  # noqa: SIM118 (no mapping)
            found.append(Views(**labels, **{name.split("/")[1]: file.get_tensor(name) for name in names}))
        return found
