"""A run folder as one plain record: everything that the page shows, and what report.json holds."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.analysis.collapse import Diagnosis, diagnose, title_of
from experiments.analysis.stats import CellVerdict, judge_grid
from experiments.report.commits import commits_of
from experiments.report.curves import curves_of
from experiments.report.examples import examples_of
from experiments.report.headline import control_states, headline
from experiments.report.load import CellRun, load_run
from experiments.report.snapshots import waypoints_of
from experiments.report.survival import survival_of
from experiments.report.timing import timing_of
from experiments.report.versions import mixed_versions

FORMAT = 1
_SIGNIFICANT = 6


def build_report(folder: Path) -> dict[str, Any]:
    """Judge and diagnose a run folder; the result is plain JSON data, with None where a number is undefined."""
    run = load_run(folder)
    evaluation = run.config.evaluation
    diagnoses = {cell.id: [diagnose(seed.metrics) for seed in cell.seeds] for cell in run.cells}
    infos = [cell.info(sum(item.is_collapsed for item in diagnoses[cell.id])) for cell in run.cells]
    verdicts = judge_grid(run.results, infos, margin=evaluation.margin, digest=run.config.digest)
    examples = examples_of(run)
    records = [
        _cell(cell, verdict, diagnoses[cell.id], {"examples": examples[cell.id], "waypoints": waypoints_of(cell)})
        for cell, verdict in zip(run.cells, verdicts, strict=True)
    ]
    cells = [record for record in records if record["role"] in ("cell", "positive")]
    controls = control_states(records)
    is_complete = all(_has_ended(record) for record in records)
    report = {
        "format": FORMAT,
        "preset": run.config.preset,
        "description": run.config.description,
        "digest": run.config.digest,
        "headline": headline(cells, controls, is_complete=is_complete),
        "is_complete": is_complete,
        "mixed_versions": mixed_versions(run),
        "is_demonstration": len(run.config.seeds) == 1,
        "seeds": run.config.seeds,
        "evaluation": evaluation.model_dump(mode="json"),
        "num_tasks": max((record["num_tasks"] or 0 for record in records), default=0),
        "controls": controls,
        "cells": cells,
        "warm_starts": _warm_starts(verdicts),
        "survival": survival_of(run.cells, diagnoses),
        "timing": timing_of(run),
        "settings": run.config.settings,
        "digests": run.config.digests,
        "versions": run.config.versions,
    }
    return plain(report)


def plain(value: Any) -> Any:
    """Make JSON data: non-finite numbers become None, floats keep six significant digits."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{_SIGNIFICANT}g}") if math.isfinite(value) else None
    return value


def _cell(cell: CellRun, verdict: CellVerdict, diagnoses: list[Diagnosis], plans: dict[str, Any]) -> dict[str, Any]:
    comparison = verdict.comparison
    test = comparison.test if comparison else None
    return {
        "id": cell.id,
        "policy": cell.record.policy,
        "objective": cell.record.objective,
        "role": cell.record.role,
        "verdict": verdict.verdict,
        "is_provisional": verdict.is_provisional,
        "reason": verdict.reason,
        "effect": test and test.mean,
        "low": test and test.low,
        "high": test and test.high,
        "standard_error": test and test.standard_error,
        "degrees_of_freedom": test and test.degrees,
        "p_value": test and test.p_value,
        "p_adjusted": verdict.p_adjusted,
        "bootstrap_low": comparison and comparison.bootstrap_low,
        "bootstrap_high": comparison and comparison.bootstrap_high,
        "detectable": verdict.detectable,
        "num_seeds": comparison and comparison.num_seeds,
        "num_tasks": comparison and comparison.num_tasks,
        "num_pairs": comparison and comparison.num_pairs,
        "num_lost_pairs": comparison and comparison.num_lost_pairs,
        "num_dropped_tasks": comparison and comparison.num_dropped_tasks,
        "lost_share": verdict.lost_share,
        "num_rechecked": _total(cell, "num_rechecked"),
        "num_disagreements": _total(cell, "num_disagreements"),
        "missing_seeds": verdict.missing_seeds,
        "seed_effects": verdict.seed_effects,
        "reward_effect": verdict.reward and verdict.reward.mean,
        "reward_low": verdict.reward and verdict.reward.low,
        "reward_high": verdict.reward and verdict.reward.high,
        "before": asdict(verdict.before),
        "after": asdict(verdict.after),
        "before_greedy": asdict(verdict.before_greedy),
        "after_greedy": asdict(verdict.after_greedy),
        "seeds": [
            {
                "seed": run.seed,
                "state": run.status.label,
                "cause": run.status.cause,
                "stopped_at": run.status.stopped_at,
                "seconds": run.status.seconds,
                "diagnosis": {**asdict(diagnosis), "title": title_of(diagnosis.kind)},
            }
            for run, diagnosis in zip(cell.seeds, diagnoses, strict=True)
        ],
        "curves": curves_of(cell),
        "commit_order": commits_of(cell),
        **plans,
    }


def _has_ended(record: dict[str, Any]) -> bool:
    """Whether a cell waits for nothing: neither for a seed, nor for rows, its own or its warm start's."""
    is_over = all(seed["state"] in ("done", "stopped", "failed") for seed in record["seeds"])
    return is_over and record["verdict"] != "owed"


def _total(cell: CellRun, name: str) -> int:
    """Sum of a count over the training steps of all seeds."""
    return int(sum(row.get(name) or 0 for run in cell.seeds for row in run.metrics))


def _warm_starts(verdicts: list[CellVerdict]) -> list[dict[str, Any]]:
    """Success of each policy before any training; the ceiling is what reinforcement learning could add at most."""
    found = {}
    for verdict in verdicts:
        success = verdict.before.success
        found[verdict.policy] = {
            "policy": verdict.policy,
            "sampled": asdict(verdict.before),
            "greedy": asdict(verdict.before_greedy),
            "ceiling": None if success is None else 100 * (1 - success),
        }
    return list(found.values())
