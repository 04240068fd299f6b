"""What a result is keyed by: names, options and declared versions, never source text.

Whoever changes a number raises the `version` of the component that it comes from (`tests/test_versions.py` reminds).
Training and evaluation have digests of their own, so that a new evaluation never retrains.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dllm_rl import registry
from dllm_rl.records.tasks import Task
from experiments.design.config import Component
from experiments.design.grid import Cell

# The margin of equivalence is the judge's: no rollout depends on it.
_JUDGED = {"margin"}


def digest(value: Any) -> str:
    """Hash of JSON-like data; the order of keys has no influence."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def task_digest(tasks: Sequence[Task]) -> str:
    """Hash of a task set: every instruction, site and gold value, in order."""
    return digest([asdict(task) for task in tasks])


def training_digest(cell: Cell, *, checkpoint: str, tasks: str) -> str:
    """Key of a trained cell. checkpoint, tasks: digests of the warm start and of the training tasks."""
    from dllm_rl.training.trainer import VERSION

    known = _start(cell, checkpoint) | {
        "trainer": VERSION,
        # A tracker changes no number.
        "train": {name: value for name, value in cell.train.items() if name != "tracker"},
        "tasks": tasks,
        "objective": _component("objective", cell.objective),
    }
    # Logging and raising change no number of a run that ends.
    return digest(known | {"on_alarm": "stop"} if cell.on_alarm == "stop" else known)


def evaluation_digest(cell: Cell, *, training: str, tasks: str) -> str:
    """Key of a trained cell's evaluation. tasks: digest of the evaluated tasks."""
    return digest({"training": training, "tasks": tasks, **_evaluated(cell)})


def warm_start_digest(cell: Cell, *, checkpoint: str, tasks: str) -> str:
    """Key of a warm start's evaluation, which all cells of a policy share."""
    return digest(_start(cell, checkpoint) | {"tasks": tasks, **_evaluated(cell)})


def _start(cell: Cell, checkpoint: str) -> dict[str, Any]:
    """What training and the evaluation of the warm start have in common. The checkpoint stands for itself."""
    return {
        "checkpoint": checkpoint,
        "policy": {"name": cell.family, "version": registry.get("policy", cell.family).version, "facts": cell.facts},
        "sampler": _component("sampler", cell.sampler),
        "environment": _component("environment", cell.environment),
        "reward": _component("reward", cell.reward),
        "threads": cell.threads,
    }


def _evaluated(cell: Cell) -> dict[str, Any]:
    """How the evaluation is run, with its sampler where that is another than training's."""
    from dllm_rl.training.engine import EVALUATION_VERSION

    settings = cell.evaluation.model_dump(mode="json", exclude=_JUDGED)
    other = cell.evaluation_sampler
    return {
        "evaluation": {"version": EVALUATION_VERSION, **settings},
        "evaluation_sampler": None if other is None else _component("sampler", other),
    }


def _component(kind: str, component: Component) -> dict[str, Any]:
    return registry.identity(kind, component.name, component.options)
