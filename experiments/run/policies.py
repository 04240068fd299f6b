"""Load a policy for a run: a checkpoint by name or folder, or the folder of a cell's seed that was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from transformers.utils import logging

from dllm_rl.errors import CheckpointError
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.loading import load_policy
from experiments.run.toy_policies import TOY, load_toy

# Their progress bars would cut through ours.
logging.disable_progress_bar()


def load(checkpoint: str, *, facts: dict[str, Any] | None = None, device: str = "cpu") -> BasePolicy:
    """Load `builtin:<family>`, `toy:<environment>`, a checkpoint's folder or hub id, or what a cell's seed trained."""
    if checkpoint.startswith(TOY):
        return load_toy(checkpoint, facts or {})
    record = Path(checkpoint) / "cell.json"
    if not record.is_file():
        return load_policy(checkpoint, device=device, facts=facts)
    cell = json.loads(record.read_text(encoding="utf-8"))
    weights = Path(checkpoint) / "checkpoint" / "model.safetensors"
    if not weights.is_file():
        raise CheckpointError(f"'{checkpoint}' has no trained weights yet; `dllm-rl status` shows what is owed")
    policy = load(cell["checkpoint"], device=device, facts=cell["facts"])
    policy.model.load_state_dict(load_file(weights, device=device))
    return policy
