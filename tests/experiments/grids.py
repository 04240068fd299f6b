"""A small grid without browser and model: real presets, digests, folders and results; only the work is faked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dllm_rl.records.tasks import GoldField, Task
from dllm_rl.seeding import python_random
from experiments.design.config import Preset
from experiments.design.presets import load_preset
from experiments.design.units import GridPlan, TaskSets, Unit, plan_grid
from experiments.run.runner import OnEvent


class Tasks:
    """The tasks of a session. salt changes every task."""

    def __init__(self, salt: str = "") -> None:
        self.salt = salt

    def keep_outcomes(self, path: Path) -> None:
        """Nothing is executed here."""

    def tasks(self, split: str) -> Sequence[Task]:
        gold = (GoldField(name="name", kind="text", wanted=("Anna",)),)
        return [
            Task(id=f"{split}/form-{i}-0", split=split, site=f"form-{i}", instruction=f"fill in{self.salt}", gold=gold)
            for i in range(6)
        ]


def preset(folder: Path, *overrides: str) -> Preset:
    """Two policies (checkpoints in `folder`) x two objectives, a null control and two seeds."""
    for family in ("autoregressive", "masked"):
        path = folder / "checkpoints" / family
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(json.dumps({"policy": {"family": family}}))
    return load_preset(
        "ci",
        [
            "policies=[autoregressive,masked]",
            "objectives=[grpo,espo]",
            *(f"policies.{name}.checkpoint={folder / 'checkpoints' / name}" for name in ("autoregressive", "masked")),
            "seeds=[0,1]",
            "evaluation.max_tasks=3",
            *overrides,
        ],
    )


def plan(folder: Path, *overrides: str, tasks: Tasks | None = None) -> GridPlan:
    chosen = preset(folder, *overrides)
    return plan_grid(chosen, task_sets(chosen, tasks), folder / "run")


def task_sets(chosen: Preset, tasks: Tasks | None = None) -> TaskSets:
    return TaskSets.of(chosen, tasks or Tasks())  # type: ignore[arg-type]


class FakeWork:
    """Rows that depend on the unit alone. calls: names of the units that ran. fail: names of the units that raise."""

    def __init__(self, fail: dict[str, BaseException] | None = None) -> None:
        self.calls: list[str] = []
        self.fail = fail or {}

    def warm_start(self, unit: Unit, on_event: OnEvent) -> list[dict[str, Any]]:
        return self._rows(unit)

    def cell(self, unit: Unit, on_event: OnEvent) -> list[dict[str, Any]]:
        on_event({"step": 0, "reward": 0.5})
        return self._rows(unit)

    def _rows(self, unit: Unit) -> list[dict[str, Any]]:
        self.calls.append(unit.name)
        if unit.name in self.fail:
            raise self.fail[unit.name]
        rng = python_random(-1 if unit.seed is None else unit.seed, "fake", unit.digest)
        return [
            {
                "split": "val",
                "task_id": f"val/form-{task}-0",
                "mode": mode,
                "sample": 0,
                "reward": rng.random(),
                "success": rng.random() < 0.5,
                "submitted": True,
                "field_accuracy": 1.0,
                "progress": 1.0,
                "near_miss": False,
                "parsed": True,
                "fault": "none",
                "plan": 'fill p1.e1 "Anna"',
                "notes": "",
                "num_tokens": 9,
                "seconds": 0.1 * len(self.calls),
            }
            for task in range(3)
            for mode in ("greedy", "sampled")
        ]
