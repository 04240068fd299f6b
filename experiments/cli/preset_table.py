"""The sizes that decide what a preset can show, in one table: printed by `grid --dry-run`, kept in docs/presets.md.

`python -m experiments.cli.preset_table` prints the table of all presets as Markdown.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from dllm_rl.policies.loading import CHECKPOINTS
from experiments.design.components import build_session
from experiments.design.config import BUILTIN, PolicyLevel, Preset, load_preset, preset_names
from experiments.design.costs import design_cost
from experiments.design.grid import Cell, build_cells
from experiments.design.units import TaskSets


def describe(preset: Preset, tasks: TaskSets) -> dict[str, str]:
    """One row a size, as text."""
    cells = build_cells(preset)
    train = cells[0].train
    training, evaluated = tasks.training, tasks.evaluation
    cost = design_cost(cells, len(preset.seeds), len(evaluated))
    fields = [len(task.gold) for task in (*training, *evaluated)]
    facts = {name: _facts(level) for name, level in preset.policies.items()}
    return {
        "cells": _cells(cells),
        "seeds": str(len(preset.seeds)),
        "instruction dial": _each(sorted({task.dial for task in (*training, *evaluated)})),
        "fields a form (min / median / max)": f"{min(fields)} / {median(fields):g} / {max(fields)}",
        "training tasks": f"{len(training)} ({preset.training_tasks.split})",
        "evaluated tasks": f"{len(evaluated)} ({preset.evaluation.split})",
        "rollouts a task at evaluation": f"{preset.evaluation.num_samples} sampled + 1 greedy",
        "vocabulary": _same(facts, "vocab_size"),
        "prompt length, at most": _same(facts, "max_prompt"),
        "canvas length": _same(facts, "canvas_length"),
        "group size": str(train["group_size"]),
        "prompts a step": str(train["prompts_per_step"]),
        "steps": str(train["steps"]),
        "inner steps (mu)": _inner_steps(cells),
        "temperature": f"{train['temperature']:g}",
        "learning rate": _rates(cells),
        "model forwards a plan (NFE)": _each([f"{name} {_nfe(preset.policies[name], facts[name])}" for name in facts]),
        "rollouts, training + evaluation": f"{cost.train_rollouts} + {cost.evaluation_rollouts}",
    }


def _cells(cells: list[Cell]) -> str:
    counts = {role: sum(cell.role == role for cell in cells) for role in ("cell", "positive", "null", "negative")}
    names = {"cell": "cells", "positive": "positive control", "null": "null control", "negative": "negative control"}
    return " + ".join(f"{count} {names[role]}" for role, count in counts.items() if count)


def _facts(level: PolicyLevel) -> dict[str, Any]:
    """What the checkpoint's config.json says; empty for a checkpoint that is not on this disk."""
    is_builtin = level.checkpoint.startswith(BUILTIN)
    folder = CHECKPOINTS / level.checkpoint.removeprefix(BUILTIN) if is_builtin else Path(level.checkpoint)
    path = folder / "config.json"
    if not path.is_file():
        return {}
    config = json.loads(path.read_text(encoding="utf-8"))
    return {**config.get("policy", {}), "vocab_size": config.get("vocab_size"), **level.facts}


def _nfe(level: PolicyLevel, facts: dict[str, Any]) -> str:
    steps = level.sampler.options.get("num_steps")
    return str(steps) if steps else f"<= {facts.get('canvas_length', 'canvas')}"


def _inner_steps(cells: list[Cell]) -> str:
    found = {cell.train["inner_steps"] for cell in cells if cell.role in ("cell", "positive")}
    return str(min(found)) if len(found) == 1 else f"{min(found)} to {max(found)}"


def _rates(cells: list[Cell]) -> str:
    rates = {cell.policy: cell.train["learning_rate"] for cell in cells if cell.role in ("cell", "positive")}
    if len(set(rates.values())) == 1:
        return f"{next(iter(rates.values())):g}"
    return _each([f"{policy} {rate:g}" for policy, rate in rates.items()])


def _same(facts: dict[str, dict[str, Any]], key: str) -> str:
    found = {name: values.get(key) for name, values in facts.items() if values.get(key) is not None}
    if len(set(found.values())) <= 1:
        return str(next(iter(found.values()), "unknown"))
    return _each([f"{name} {value}" for name, value in found.items()])


def _each(values: list[Any]) -> str:
    return ", ".join(str(value) for value in values)


def markdown() -> str:
    """The table of all presets, one column a preset."""
    columns = {}
    for name in preset_names():
        preset = load_preset(name)
        with build_session(preset.environment) as session:
            columns[name] = describe(preset, TaskSets.of(preset, session))
    rows = list(next(iter(columns.values())))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {row} | " + " | ".join(column[row] for column in columns.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
