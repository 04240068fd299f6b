"""A run folder as one plain record, which is report.json, and the files that are written from it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from dllm_rl.files import replace_file
from experiments.analysis.collapse import Diagnosis, diagnose, title_of
from experiments.analysis.collapse.survival import Lifetime, kaplan_meier, lifetime, log_rank
from experiments.analysis.contrasts import Contrast, contrasts_of
from experiments.analysis.conversion import Conversion, TrainedSeed, conversion_of
from experiments.analysis.verdicts import CellVerdict, judge_grid
from experiments.report.curves import commits_of, curves_of
from experiments.report.load import CellRun, Run, examples_of, load_run, snapshots_of
from experiments.report.page import render
from experiments.report.tables import control_states, headline, latex, markdown
from experiments.report.turns import EpisodeSummary, episodes_of

FORMAT = 1
_SIGNIFICANT = 6
_PHASES = ("sampling", "browser", "update")
_NAMED = 3


def build_report(folder: Path) -> dict[str, Any]:
    """Judge and diagnose a run folder; the result is plain JSON data, with None where a number is undefined."""
    run = load_run(folder)
    evaluation = run.config.evaluation
    diagnoses = {
        cell.id: [diagnose(seed.metrics, is_over=seed.status.is_trained) for seed in cell.seeds] for cell in run.cells
    }
    infos = [cell.info(sum(item.is_collapsed for item in diagnoses[cell.id])) for cell in run.cells]
    verdicts = judge_grid(run.results, infos, margin=evaluation.margin, digest=run.config.digest)
    examples, episodes = examples_of(run), episodes_of(run)
    averages = contrasts_of(run.results, [info for info in infos if info.role == "cell"])
    records = [
        _cell(
            cell,
            verdict,
            diagnoses[cell.id],
            {
                "examples": examples[cell.id],
                "waypoints": snapshots_of(cell),
                "episodes": None if episodes is None else _episodes(episodes[cell.id]),
            },
        )
        for cell, verdict in zip(run.cells, verdicts, strict=True)
    ]
    cells = [record for record in records if record["role"] == "cell"]
    controls = control_states(records)
    contrasts = [_contrast(item) for item in averages]
    is_complete = all(_has_ended(record) for record in records)
    report = {
        "format": FORMAT,
        "preset": run.config.preset,
        "description": run.config.description,
        "digest": run.config.digest,
        "headline": headline(cells, controls, contrasts, num_seeds=len(run.config.seeds), is_complete=is_complete),
        "is_complete": is_complete,
        "mixed_versions": mixed_versions(run),
        "taken": taken(run),
        "is_demonstration": len(run.config.seeds) == 1,
        "seeds": run.config.seeds,
        "evaluation": evaluation.model_dump(mode="json"),
        "num_tasks": max((record["num_tasks"] or 0 for record in records), default=0),
        "controls": controls,
        "cells": cells,
        "contrasts": contrasts,
        "warm_starts": _warm_starts(verdicts),
        "survival": survival_of(run.cells, diagnoses),
        "timing": timing_of(run),
        "settings": run.config.settings,
        "digests": run.config.digests,
        "versions": run.config.versions,
    }
    return plain(report)


def write_report(run_dir: Path | str) -> None:
    """Judge and diagnose what is finished in a run folder, and write its report; a kill leaves the old files whole."""
    folder = Path(run_dir)
    report = build_report(folder)
    files = {
        "report.json": json.dumps(report, ensure_ascii=False, allow_nan=False) + "\n",
        "report.html": render(report),
        "report_tables.md": markdown(report),
        "report_tables.tex": latex(report),
    }
    for name, text in files.items():
        with replace_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


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
    reward = verdict.reward if cell.is_reward_comparable else None
    return {
        "id": cell.id,
        "policy": cell.record.policy,
        "objective": cell.record.objective,
        "role": cell.record.role,
        "is_positive_control": cell.record.is_positive_control,
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
        "is_reward_comparable": cell.is_reward_comparable,
        "reward_effect": reward and reward.mean,
        "reward_low": reward and reward.low,
        "reward_high": reward and reward.high,
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
        "conversion": asdict(_conversion(cell, verdict, diagnoses)),
        "curves": curves_of(cell),
        "commit_order": commits_of(cell),
        **plans,
    }


def _episodes(summaries: dict[str, EpisodeSummary | None]) -> dict[str, Any]:
    return {when: None if item is None else asdict(item) for when, item in summaries.items()}


def _contrast(item: Contrast) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "name": item.name,
        "effect": item.test.mean,
        "low": item.test.low,
        "high": item.test.high,
        "p_adjusted": item.p_adjusted,
        "num_cells": item.num_cells,
        "num_seeds": item.num_seeds,
        "num_tasks": item.num_tasks,
    }


def _conversion(cell: CellRun, verdict: CellVerdict, diagnoses: list[Diagnosis]) -> Conversion:
    seeds = [
        TrainedSeed(metrics=run.metrics, diagnosis=diagnosis)
        for run, diagnosis in zip(cell.seeds, diagnoses, strict=True)
    ]
    return conversion_of(verdict.before, verdict.after, seeds)


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


def survival_of(cells: Sequence[CellRun], diagnoses: dict[str, list[Diagnosis]]) -> list[dict[str, Any]]:
    """One record a policy and an objective: its survival curve, and the log-rank p against all others of its kind.

    Empty where nothing collapsed. The p-values are descriptive: they are not corrected for their number.
    """
    found = []
    for kind in ("policy", "objective"):
        groups: dict[str, list[Lifetime]] = {}
        for cell in cells:
            if cell.record.role == "cell":
                lives = [lifetime(item) for item in diagnoses[cell.id] if item.num_steps]
                groups.setdefault(getattr(cell.record, kind), []).extend(lives)
        for name, lives in groups.items():
            rest = [life for other, others in groups.items() if other != name for life in others]
            if lives:
                found.append(
                    {"kind": kind, "name": name, **asdict(kaplan_meier(lives)), "log_rank_p": log_rank(lives, rest)}
                )
    return found if any(item["num_collapsed"] for item in found) else []


def timing_of(run: Run) -> dict[str, Any]:
    """Seconds of each phase over all cells and seeds.

    The three training phases are measured by the trainer; what is left of a cell's wall time is loading, saving and the
    final evaluation.
    """
    totals = dict.fromkeys(_PHASES, 0.0)
    num_rollouts, num_executed, num_steps, units = 0.0, 0.0, 0, 0.0
    for cell in run.cells:
        for seed in cell.seeds:
            before = sum(totals.values())
            for row in seed.metrics:
                num_steps += 1
                num_rollouts += row.get("num_rollouts") or 0
                num_executed += (row.get("num_rollouts") or 0) * row.get("executed_share", 1.0)
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
        "num_training_rollouts_executed": round(num_executed),
        "num_evaluation_rollouts": run.results.num_rows,
        "num_evaluation_rollouts_executed": _num_executed(run.results),
        "training_rollouts_per_second": num_rollouts / training if training else None,
    }


def _num_executed(results: pa.Table) -> int:
    """Evaluated rollouts that took time in the environment. Where none did, nothing is timed and all were executed."""
    num_timed = sum(seconds > 0 for seconds in results["seconds"].to_pylist())
    return num_timed or results.num_rows


def mixed_versions(run: Run) -> dict[str, Any] | None:
    """What differs between the finished units, or within one, most frequent version first; None where all are equal.

    A unit that does not say (of an older toolkit, or without a browser) counts for nothing.
    """
    made = {unit.name: unit.versions for unit in run.units}
    packages = dict.fromkeys(package for found in made.values() for versions in found for package in versions)
    differing = [(package, units) for package in packages if len(units := _by_version(made, package)) > 1]
    if not differing:
        return None
    told = "; ".join(f"{package} {_told(units)}" for package, units in differing)
    return {
        "sentence": f"Units of this grid were made by different versions, so they are not strictly comparable: {told}.",
        "packages": [
            {
                "package": package,
                "versions": [
                    {"version": version, "num_units": len(names), "units": names} for version, names in units.items()
                ],
            }
            for package, units in differing
        ],
    }


def taken(run: Run) -> str:
    """Sentence on the finished units that `--reuse` took from other runs; empty where there is none."""
    done = [unit.status.taken_from for unit in run.units if unit.status.state == "done"]
    sources = Counter(source for source in done if source)
    if not sources:
        return ""
    told = ", ".join(f"{count} from {source}" for source, count in sources.most_common())
    return f"Of {len(done)} finished units, some were trained by another grid under the same settings: {told}."


def _by_version(made: dict[str, tuple[dict[str, str], ...]], package: str) -> dict[str, list[str]]:
    """Units of each version; one that was trained under two is of both."""
    units: dict[str, list[str]] = {}
    for name, found in made.items():
        for version in dict.fromkeys(versions[package] for versions in found if package in versions):
            units.setdefault(version, []).append(name)
    return dict(sorted(units.items(), key=lambda item: (-len(item[1]), item[0])))


def _told(units: dict[str, list[str]]) -> str:
    """Each version with its number of units; but for the most frequent, with their names."""
    parts = []
    for index, (version, names) in enumerate(units.items()):
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        listed = f" ({', '.join(names[:_NAMED])}{more})" if index else ""
        parts.append(f"{version} in {len(names)} unit{'' if len(names) == 1 else 's'}{listed}")
    return ", ".join(parts)
