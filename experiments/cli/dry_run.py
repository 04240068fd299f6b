"""`dllm-rl grid --dry-run`: what would run, what it would cost, and the smallest effect that the design can see."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from experiments.analysis.stats import smallest_detectable_effect
from experiments.cli.preset_table import describe
from experiments.design.costs import BROWSER_START_SECONDS, REPORT_SECONDS
from experiments.design.units import GridPlan, TaskSets
from experiments.run.progress import duration
from experiments.run.runner import owed_units


def print_dry_run(plan: GridPlan, tasks: TaskSets, console: Console) -> None:
    """Print cells, sizes, rollouts, estimated minutes and the smallest detectable effect."""
    table = Table("unit", "rollouts: training", "evaluation", "estimate", "state")
    for unit in plan.units:
        cost = unit.cost
        state = "done" if unit.files.is_done else "owed" if plan.is_chosen(unit) else "not now"
        table.add_row(unit.name, str(cost.train_rollouts), str(cost.evaluation_rollouts), duration(cost.seconds), state)
    console.print(table)
    sizes = Table("size", "value", show_header=False)
    for name, value in describe(plan.preset, tasks).items():
        sizes.add_row(name, value)
    console.print(sizes)
    seconds = plan.cost.seconds + BROWSER_START_SECONDS + REPORT_SECONDS
    left = sum(unit.cost.seconds for unit in plan.units if not unit.files.is_done)
    owed = f"{duration(left)} owed in all"
    if plan.chosen is not None:
        owed += f", {duration(sum(unit.cost.seconds for unit in owed_units(plan)))} owed by this command"
    shared = ", in one process; two that share it need about half" if plan.preset.threads == 1 else ""
    console.print(
        f"estimate on two cores: {duration(seconds)} from nothing, {owed}{shared}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(smallest_effect(plan, tasks), highlight=False, soft_wrap=True)


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
