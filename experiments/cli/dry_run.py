"""`dllm-rl grid --dry-run`: what would run, what it would cost, and the smallest effect that the design can see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from experiments.analysis.variance import smallest_detectable_effect
from experiments.design.config import BUILTIN, PolicyLevel
from experiments.design.costs import BROWSER_START_SECONDS, REPORT_SECONDS, design_cost
from experiments.design.grid import Cell
from experiments.design.toys import TOY
from experiments.design.units import GridPlan, TaskSets
from experiments.run.processes import number_of_workers
from experiments.run.progress import duration
from experiments.run.runner import owed_units


def print_dry_run(plan: GridPlan, tasks: TaskSets, console: Console, *, workers: int | None = None) -> None:
    """Print cells, sizes, rollouts, estimated minutes and the smallest detectable effect.

    Args:
        workers: Processes that are asked for (`number_of_workers`).
    """
    table = Table(Column("unit", no_wrap=True), "rollouts: training", "evaluation", "estimate", "state")
    for unit in plan.units:
        cost = unit.cost
        state = "done" if unit.files.is_done else "owed" if plan.is_chosen(unit) else "not now"
        table.add_row(unit.name, str(cost.train_rollouts), str(cost.evaluation_rollouts), duration(cost.seconds), state)
    console.print(table)
    sizes = Table("size", "value", show_header=False)
    for name, value in describe(plan, tasks).items():
        sizes.add_row(name, value)
    console.print(sizes)
    seconds = plan.cost.seconds + BROWSER_START_SECONDS + REPORT_SECONDS
    left = sum(unit.cost.seconds for unit in plan.units if not unit.files.is_done)
    ours = sum(unit.cost.seconds for unit in owed_units(plan))
    owed = f"{duration(left)} owed in all"
    if plan.chosen is not None:
        owed += f", {duration(ours)} owed by this command"
    num_workers = number_of_workers(plan.preset, workers, owed_units(plan))
    console.print(
        f"estimate in one process: {duration(seconds)} from nothing, {owed}; "
        f"with {num_workers} worker{'' if num_workers == 1 else 's'} about {duration(ours / num_workers)}",
        highlight=False,
        soft_wrap=True,
    )
    own = _own_checkpoints(plan)
    if own:
        names = ", ".join(own)
        console.print(
            f"The estimate is for models of the built-in size. {names}: not known; the first unit will tell.",
            highlight=False,
            soft_wrap=True,
        )
    console.print(smallest_effect(plan, tasks), highlight=False, soft_wrap=True)
    for cells in own.values():
        from experiments.cli.memory import print_memory

        print_memory(cells, console)


def _own_checkpoints(plan: GridPlan) -> dict[str, list[Cell]]:
    """The cells of each policy whose model is neither that of the built-in ones nor a toy."""
    from dllm_rl.policies.checkpoints import is_tiny

    own: dict[str, list[Cell]] = {}
    for cell in plan.cells:
        if not cell.checkpoint.startswith((BUILTIN, TOY)) and not is_tiny(cell.checkpoint):
            own.setdefault(cell.policy, []).append(cell)
    return own


def smallest_effect(plan: GridPlan, tasks: TaskSets) -> str:
    """The smallest change of success that the design can find, as a sentence."""
    evaluation, num_seeds = plan.preset.evaluation, len(plan.preset.seeds)
    num_tasks = len(tasks.evaluation)
    num_cells = max(1, sum(cell.role == "cell" for cell in plan.cells))
    effect = smallest_detectable_effect(num_seeds, num_tasks, evaluation.num_samples, num_comparisons=num_cells)
    if math.isinf(effect):
        return "This design cannot find any effect: it has one seed and one task."
    size = f"{effect:.1f} points" if effect < 100 else "none: not even 100 points"
    sentence = f"Smallest effect that this design finds 80 % of the time (Holm over {num_cells}): {size}"
    if num_seeds == 1:
        sentence += ", over tasks only. One seed can never show an improvement: every verdict is single_seed"
    return sentence + "."


def describe(plan: GridPlan, tasks: TaskSets) -> dict[str, str]:
    """One row a size, as text."""
    preset, cells = plan.preset, plan.cells
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


def _cells(cells: Sequence[Cell]) -> str:
    counts = {role: sum(cell.role == role for cell in cells) for role in ("cell", "null", "negative")}
    names = {"cell": "cells", "null": "null control", "negative": "negative control"}
    return " + ".join(f"{count} {names[role]}" for role, count in counts.items() if count)


def _facts(level: PolicyLevel) -> dict[str, Any]:
    """What the checkpoint's config.json says; empty for a checkpoint that is not on this disk."""
    config = level.config
    return {**level.stated_facts, "vocab_size": config.get("vocab_size"), **level.facts} if config else {}


def _nfe(level: PolicyLevel, facts: dict[str, Any]) -> str:
    steps = level.sampler.options.get("num_steps")
    return str(steps) if steps else f"<= {facts.get('canvas_length', 'canvas')}"


def _inner_steps(cells: Sequence[Cell]) -> str:
    found = {cell.train["inner_steps"] for cell in cells if cell.role == "cell"}
    return str(min(found)) if len(found) == 1 else f"{min(found)} to {max(found)}"


def _rates(cells: Sequence[Cell]) -> str:
    rates = {cell.policy: cell.train["learning_rate"] for cell in cells if cell.role == "cell"}
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
