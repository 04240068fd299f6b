"""Where the wall time of a run went, and how many rollouts a second that was."""

from __future__ import annotations

from typing import Any

from experiments.report.load import Run

_PHASES = ("sampling", "browser", "update")


def timing_of(run: Run) -> dict[str, Any]:
    """Seconds of each phase over all cells and seeds.

    The three training phases are measured by the trainer; what is left of a cell's wall time is loading, saving and the
    final evaluation.
    """
    totals = dict.fromkeys(_PHASES, 0.0)
    num_rollouts, num_steps, units = 0.0, 0, 0.0
    for cell in run.cells:
        for seed in cell.seeds:
            before = sum(totals.values())
            for row in seed.metrics:
                num_steps += 1
                num_rollouts += row.get("num_rollouts") or 0
                for phase in _PHASES:
                    totals[phase] += row.get(f"seconds/{phase}") or 0.0
            # The wall time of a seed that still trains is not recorded yet.
            units += max(seed.status.seconds, sum(totals.values()) - before)
    training = sum(totals.values())
    return {
        **totals,
        "evaluation": max(0.0, units - training),
        "warm_starts": run.warm_start_seconds,
        "total": units + run.warm_start_seconds,
        "num_steps": num_steps,
        "num_training_rollouts": int(num_rollouts),
        "num_evaluation_rollouts": run.results.num_rows,
        "training_rollouts_per_second": num_rollouts / training if training else None,
    }
