"""What a result is keyed by: digests of training and of evaluation apart, so that a new evaluation never retrains."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import dllm_rl
from dllm_rl import registry
from dllm_rl.tasks import Task
from experiments.config import Component
from experiments.grid import Cell

# The checkpoint stands for itself by its own digest, wherever its folder lies.
_TRAINING = ("facts", "train", "environment", "threads")
# Settings that came later and are off: runs without them keep the key that they had.
_OFF = {"target_log_ratio": None, "target_kl": None, "resample_rounds": 0}
# The margin of equivalence is the judge's: no rollout depends on it.
_JUDGED = {"margin"}
_WARM_START = ("facts", "environment", "threads")


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
    kept = {k: value for k, value in train if k != "tracker" and (k not in _OFF or value != _OFF[k])}
    settings["train"] = kept
    # Logging and raising change no number of a run that ends.
    if cell.on_alarm == "stop":
        settings["on_alarm"] = "stop"
    known = {"version": dllm_rl.__version__, **settings, "checkpoint": checkpoint, "tasks": tasks}
    return digest({**known, **_resolved(cell, ("sampler", "objective", "reward"))})


def evaluation_digest(cell: Cell, *, training: str, tasks: str) -> str:
    """Key of a trained cell's evaluation. tasks: digest of the evaluated tasks."""
    return digest({"training": training, **_evaluated(cell), "tasks": tasks})


def warm_start_digest(cell: Cell, *, checkpoint: str, tasks: str) -> str:
    """Key of a warm start's evaluation, which all cells of a policy share."""
    settings = cell.model_dump(mode="json", include=set(_WARM_START)) | _evaluated(cell)
    known = {"version": dllm_rl.__version__, **settings, "checkpoint": checkpoint, "tasks": tasks}
    return digest({**known, **_resolved(cell, ("sampler", "reward"))})


def _evaluated(cell: Cell) -> dict[str, Any]:
    """How the evaluation is run, with its sampler where that is another than training's."""
    settings = {"evaluation": cell.evaluation.model_dump(mode="json", exclude=_JUDGED)}
    other = cell.evaluation_sampler
    return settings if other is None else {**settings, "evaluation_sampler": _component("sampler", other)}


def _resolved(cell: Cell, names: Sequence[str]) -> dict[str, Any]:
    return {name: _component(name, getattr(cell, name)) for name in names}


def _component(kind: str, component: Component) -> dict[str, Any]:
    """A component as it will be: options that were left at their defaults spelled out, and the code it is made of.

    Whoever edits an objective or a sampler, or a default in it, gets other results, and so another key.
    """
    built = registry.build(kind, component.name, component.options)
    module = inspect.getmodule(type(built))
    source = "" if module is None else inspect.getsource(module)
    return {"name": component.name, "options": asdict(built), "source": digest(source)}
