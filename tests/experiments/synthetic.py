"""Synthetic runs: metric curves of each kind, result rows with known effects, a run folder without training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dllm_rl.files import append_rows, sha256, write_json
from experiments.run.results import SCHEMA, merge, write_rows
from experiments.run.status import Status, write_status

POLICIES = ("autoregressive", "masked", "slot", "flow")
OBJECTIVES = ("grpo", "cj_grpo", "gspo", "espo")


def metrics_of(kind: str, num_steps: int = 100, *, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of metrics of a run of this kind. A fall sets in at 60 % of the run; its cause 10 % earlier."""
    draw = np.random.default_rng(seed)
    time = np.arange(num_steps)

    def late(start: float) -> np.ndarray:
        return np.clip((time - start * num_steps) / (0.1 * num_steps), 0, 1)

    def noise(scale: float) -> np.ndarray:
        return draw.normal(0, scale, num_steps)

    rise = 0.4 + 0.25 * np.minimum(1, time / (0.4 * num_steps))
    falls = kind in ("off_policy", "concentration", "drift", "unexplained")
    level = rise * (1 - 0.9 * late(0.6)) if falls else rise
    columns = {
        "success": level,
        "entropy": 0.5 - 0.15 * np.minimum(1, time / num_steps),
        "unique_completions": np.full(num_steps, 0.9),
        "frac_reward_zero_std": np.full(num_steps, 0.2),
        "all_good": np.full(num_steps, 0.1),
        "kl": 0.02 * time / num_steps,
        "spread": np.full(num_steps, 0.2),
        "clip_ratio/region_mean": np.full(num_steps, 0.05),
        "ratio/ess": np.full(num_steps, 0.95),
        "ratio/far_share": np.zeros(num_steps),
        "grad_norm": np.full(num_steps, 1.0),
        "parse_valid": np.full(num_steps, 0.97),
        "completion_length": np.full(num_steps, 60.0),
        "eos_share": np.full(num_steps, 0.98),
        "fault_share": np.zeros(num_steps),
        "ratio_dev_u0": np.zeros(num_steps),
    }
    early = late(0.5)
    if kind == "off_policy":
        columns["spread"] += 2 * early
        columns["grad_norm"] += 20 * early
        columns["ratio/ess"] -= 0.6 * early
        columns["entropy"] *= 1 - 0.8 * late(0.7)
    elif kind == "concentration":
        columns["entropy"] *= 1 - 0.85 * early
        columns["unique_completions"] -= 0.75 * early
        columns["frac_reward_zero_std"] += 0.75 * late(0.6)
    elif kind == "drift":
        columns["kl"] += 3 * late(0.45)
        columns["parse_valid"] -= 0.8 * early
        columns["completion_length"] += 80 * early
    elif kind == "never_alive":
        columns["success"] = np.zeros(num_steps)
        columns["frac_reward_zero_std"] = np.full(num_steps, 1.0)
    elif kind == "saturated":
        columns["success"] = np.clip(rise + 0.35 * late(0.4), 0, 1)
        columns["all_good"] = np.clip(0.1 + 0.9 * late(0.4), 0, 1)
    elif kind == "environment":
        columns["fault_share"] = 0.5 * late(0.6)
        columns["success"] = rise * (1 - 0.9 * late(0.6))
    elif kind == "estimator_noise":
        columns["ratio_dev_u0"] = np.full(num_steps, 0.4)
    is_noisy = {"success": 0.04, "entropy": 0.02, "unique_completions": 0.03, "grad_norm": 0.15, "kl": 0.002}
    columns["right"] = np.minimum(1.0, columns["success"] + 0.15)
    columns["near_miss"] = columns["right"] - columns["success"]
    columns["conversion"] = columns["success"] / columns["right"]
    columns["right_mixed_groups"] = np.full(num_steps, 0.5)
    columns["right_within_share"] = np.full(num_steps, 0.7)
    values = {name: column + noise(is_noisy.get(name, 0.0)) for name, column in columns.items()}
    if kind == "never_alive":
        values["success"] = np.zeros(num_steps)
    rows = [{"step": int(step), **{name: float(column[step]) for name, column in values.items()}} for step in time]
    for row in rows:
        row["success"] = min(1.0, max(0.0, row["success"]))
        row["reward"] = 0.2 * (kind != "never_alive") + 0.8 * row["success"]
        spread = row.pop("spread")
        row |= {"ratio/mean": 1.0, "ratio/q05": 1 - spread / 2, "ratio/q95": 1 + spread / 2, "num_rollouts": 32.0}
        row |= {"seconds/sampling": 1.1, "seconds/browser": 2.4, "seconds/update": 1.6}
        if kind == "numerical" and row["step"] >= 0.7 * num_steps:
            row["grad_norm"] = float("nan")
    return rows


def commits_of(policy: str, num_steps: int) -> list[dict[str, Any]]:
    """Commit orders at three steps: left to right for the autoregressive policy, else from anywhere to sharper."""
    size = 12
    position, step = np.mgrid[:size, :size]
    rows = []
    for index, at in enumerate((0, (num_steps - 1) // 2, num_steps - 1)):
        counts = 40 * np.exp(-np.abs(position - step) / (1.5 + 3 * (2 - index)))
        if policy == "autoregressive":
            counts = 40 * (position == step)
        rows.append({"step": at, "num_positions": 96, "num_steps": 32, "counts": counts.round().astype(int).tolist()})
    return rows


def _row(task: int, mode: str, sample: int, success: bool, draw: np.random.Generator, fault: str) -> dict[str, Any]:
    all_right = success or bool(draw.random() < 0.2)
    accuracy = 1.0 if all_right else float(draw.choice([0.25, 0.5, 0.75]))
    submitted = success or (not all_right and bool(draw.random() < 0.6))
    plan = f'fill p1.e1 "Ada Lovelace"\nselect p1.e2 "{"United Kingdom" if all_right else "Ukraine"}"\ncheck p1.e4'
    return {
        "split": "val",
        "task_id": f"val-{task:04d}",
        "mode": mode,
        "sample": sample,
        "reward": 0.5 * accuracy + 0.5 * success,
        "success": success,
        "submitted": submitted,
        "field_accuracy": accuracy,
        "progress": accuracy,
        "near_miss": all_right and not submitted,
        "parsed": True,
        "fault": fault,
        "plan": plan + ("\nsubmit p1.e5" if submitted else ""),
        "notes": "success" if success else "country: wanted United Kingdom, got Ukraine",
        "num_tokens": 48,
        "seconds": 0.2,
    }


def evaluation_rows(
    *,
    rates: np.ndarray,
    effect: float,
    num_samples: int,
    draw: np.random.Generator,
    lost: float = 0.0,
) -> list[dict[str, Any]]:
    """Evaluated rollouts of one policy. rates: success rate a task before; effect: added to each, in points."""
    rows = []
    for task, rate in enumerate(np.clip(rates + effect / 100, 0, 1)):
        for mode, samples in (("greedy", 1), ("sampled", num_samples)):
            for sample in range(samples):
                fault = "environment" if draw.random() < lost else "none"
                rows.append(_row(task, mode, sample, bool(draw.random() < rate) and fault == "none", draw, fault))
    return rows


def labels_of(cell: str, policy: str, objective: str, role: str, seed: int) -> dict[str, Any]:
    """Columns that all rows of one evaluation share."""
    stage = "warmstart" if seed < 0 else "final"
    return {"cell": cell, "policy": policy, "objective": objective, "role": role, "seed": seed, "stage": stage}


def result_table(parts: list[tuple[list[dict[str, Any]], dict[str, Any]]]) -> pa.Table:
    """Rows with their labels as one results table."""
    return pa.Table.from_pylist([{**row, **labels} for rows, labels in parts for row in rows], schema=SCHEMA)


def write_snapshot(place: Path, step: int, rows: list[dict[str, Any]]) -> None:
    """Greedy plans of the first tasks after so many steps, each with a film."""
    shown = []
    for index, row in enumerate(rows[:3]):
        film = place / "waypoints" / f"step{step}-{index}.html"
        film.parent.mkdir(parents=True, exist_ok=True)
        film.write_text(f"<!doctype html><title>film</title><p>{row['task_id']} after {step} steps</p>")
        shown.append({"instruction": f"Do {row['task_id']}.", "film": f"waypoints/{film.name}", **row})
    write_json(place / "waypoints" / f"step{step}.json", {"step": step, "rows": shown})


def finished(rows: Path, **more: Any) -> Status:
    """Status of a unit whose evaluation `abc` has these rows."""
    return Status(state="done", digest="abc", evaluations={"abc": sha256(rows)}, **more)


def write_run(
    folder: Path,
    *,
    preset: str = "grid16",
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    num_steps: int = 60,
    num_tasks: int = 60,
    num_samples: int = 4,
    kinds: dict[str, str] | None = None,
    effects: dict[str, float] | None = None,
    policies: tuple[str, ...] = POLICIES,
    objectives: tuple[str, ...] = OBJECTIVES,
) -> Path:
    """Write a run folder as the grid writes it. kinds, effects: of single cells by id; others are healthy and null."""
    draw = np.random.default_rng(0)
    cells = [(f"{policy}-{objective}", policy, objective, "cell") for policy in policies for objective in objectives]
    cells.append((f"null-{policies[0]}-grpo", policies[0], "grpo", "null"))
    if len(seeds) > 1:
        cells.append((f"negative-{policies[-1]}-espo_unshared", policies[-1], "espo_unshared", "negative"))
    rates, parts = {}, []
    for index, policy in enumerate(policies):
        rates[policy] = np.clip(draw.beta(1.2 + index, 1.6, num_tasks), 0.02, 0.98)
        warm = folder / "warmstart" / f"{policy}-abc"
        rows = evaluation_rows(rates=rates[policy], effect=0, num_samples=num_samples, draw=draw)
        write_rows(warm / "evaluation-abc.parquet", rows, **labels_of(f"warmstart:{policy}", policy, "", "", -1))
        write_snapshot(warm, 0, [row for row in rows if row["mode"] == "greedy"])
        parts.append(warm / "evaluation-abc.parquet")
        write_status(warm, finished(parts[-1], seconds=21.5))
    for cell, policy, objective, role in cells:
        for seed in seeds:
            place = folder / "cells" / f"{cell}-abc" / f"seed{seed}"
            kind = (kinds or {}).get(cell, "estimator_noise" if role == "negative" else "healthy")
            place.mkdir(parents=True)
            append_rows(place / "metrics.jsonl", metrics_of(kind, num_steps, seed=seed))
            append_rows(place / "commit_order.jsonl", commits_of(policy, num_steps))
            effect = (effects or {}).get(cell, 0.0)
            rows = evaluation_rows(rates=rates[policy], effect=effect, num_samples=num_samples, draw=draw, lost=0.004)
            for step in (num_steps // 2, num_steps) if seed == seeds[0] else ():
                write_snapshot(place, step, [row for row in rows if row["mode"] == "greedy"])
            if role == "null":
                rows = _warm_rows(parts[0])
            write_rows(place / "evaluation-abc.parquet", rows, **labels_of(cell, policy, objective, role, seed))
            parts.append(place / "evaluation-abc.parquet")
            write_status(place, finished(parts[-1], seconds=num_steps * 5.1 + 40))
    merge(folder / "results.parquet", parts)
    config = {
        "preset": preset,
        "description": "Four policies by four objectives, each cell against its own warm start (synthetic).",
        "digest": "0123456789abcdef",
        "seeds": list(seeds),
        "evaluation": {"split": "val", "num_samples": num_samples, "temperature": 1.0, "margin": 5.0},
        "cells": [
            {
                "id": cell,
                "policy": policy,
                "objective": objective,
                "role": role,
                "folder": f"cells/{cell}-abc",
                "digest": "abc",
            }
            for cell, policy, objective, role in cells
        ],
        "warm_starts": {policy: f"warmstart/{policy}-abc" for policy in policies},
        "settings": {"train": {"steps": num_steps, "inner_steps": 2}},
        "digests": {"train": "11", "evaluation": "22"},
        "versions": {"dllm_rl": "0.0", "python": "3.11"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def leave_out(folder: Path, *seeds: str) -> None:
    """Make a run one in which these have not begun: `cell` or `cell/seed1`, or `warmstart/policy`."""
    table = pq.read_table(folder / "results.parquet")
    for name in seeds:
        cell, _, seed = name.partition("/")
        if cell == "warmstart":
            shutil.rmtree(folder / "warmstart" / f"{seed}-abc")
            gone = pc.equal(table["cell"], f"warmstart:{seed}")
        else:
            shutil.rmtree(folder / "cells" / f"{cell}-abc" / seed)
            gone = pc.equal(table["cell"], cell)
            if seed:
                gone = pc.and_(gone, pc.equal(table["seed"], int(seed.removeprefix("seed"))))
        table = table.filter(pc.invert(gone))
    pq.write_table(table, folder / "results.parquet")


def _warm_rows(path: Path) -> list[dict[str, Any]]:
    labels = set(labels_of("", "", "", "", 0))
    return [{key: row[key] for key in row if key not in labels} for row in pq.read_table(path).to_pylist()]
