"""What a result is keyed by: digests of training and of evaluation apart, so that a new evaluation never retrains."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import dllm_rl
from dllm_rl.tasks import Task
from experiments.grid import Cell

# The checkpoint stands for itself by its own digest, wherever its folder lies.
_TRAINING = ("facts", "sampler", "objective", "train", "environment", "reward", "threads")
# Settings that came later and are off: runs without them keep the key that they had.
_OFF = {"target_log_ratio": None, "target_kl": None, "resample_rounds": 0}
# Settings that change no number of a run.
_SILENT = ("tracker", "save_views")
_WARM_START = ("facts", "sampler", "environment", "reward", "evaluation", "threads")


def digest(value: Any) -> str:
    """Hash of JSON-like data; the order of keys has no influence."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def task_digest(tasks: Sequence[Task]) -> str:
    """Hash of a task set: every instruction, site and gold value, in order."""
    return digest([asdict(task) for task in tasks])


def training_digest(cell: Cell, *, checkpoint: str, tasks: str) -> str:
    """Key of a trained cell. checkpoint, tasks: digests of the warm start and of the training tasks."""
    settings = cell.model_dump(mode="json", include=set(_TRAINING))
    train = settings["train"].items()
    kept = {k: value for k, value in train if k not in _SILENT and (k not in _OFF or value != _OFF[k])}
    settings["train"] = kept
    # Logging and raising change no number of a run that ends.
    if cell.on_alarm == "stop":
        settings["on_alarm"] = "stop"
    return digest({"version": dllm_rl.__version__, **settings, "checkpoint": checkpoint, "tasks": tasks})


def evaluation_digest(cell: Cell, *, training: str, tasks: str) -> str:
    """Key of a trained cell's evaluation. tasks: digest of the evaluated tasks."""
    settings = {"evaluation": cell.evaluation.model_dump(mode="json"), **_drawn_with(cell)}
    return digest({"training": training, **settings, "tasks": tasks})


def warm_start_digest(cell: Cell, *, checkpoint: str, tasks: str) -> str:
    """Key of a warm start's evaluation, which all cells of a policy share."""
    settings = cell.model_dump(mode="json", include=set(_WARM_START)) | _drawn_with(cell)
    return digest({"version": dllm_rl.__version__, **settings, "checkpoint": checkpoint, "tasks": tasks})


def _drawn_with(cell: Cell) -> dict[str, Any]:
    """The sampler of the evaluation, where it is another than that of training."""
    other = cell.evaluation_sampler
    return {} if other is None else {"evaluation_sampler": other.model_dump(mode="json")}
