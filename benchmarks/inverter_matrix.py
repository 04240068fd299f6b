"""Families inverting each other: plans of each policy of a grid, judged by FLIP with each of several inverters.

`python -m benchmarks.inverter_matrix runs/grid16 plain runs/inverters/inverter runs/inverters/masked_inverter`

Rollouts are recorded ones (`benchmarks.judge_labels`), drawn at random from all steps of the first seed of `grpo`, as
many of each policy. FLIP reads fields and not whether the form was sent, so the AUROC is that of right fields, sent or
not. The column of gold plans is what these earn: the most that an inverter can give.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.judge_labels import Recorded, read
from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.records.evidence import Evidence, as_planned
from dllm_rl.records.tasks import Observation, Task
from dllm_rl.reward import Reward, scores
from experiments.analysis.judges import auroc
from experiments.design.config import build_session
from experiments.design.presets import load_preset
from harness.sites import gold_plan

NOT_SENT = "not submitted, else right"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What an inverter says of the plans of each policy.

    Attributes:
        aurocs: Of right fields, by policy.
        on_gold: Mean similarity of what it infers from gold plans.
        milliseconds: For a state.
    """

    name: str
    aurocs: dict[str, float]
    on_gold: float
    milliseconds: float


def is_right(item: Recorded) -> bool:
    """Whether the fields are right, sent or not."""
    return item.success or item.error == NOT_SENT


def plans(run: Path, count: int) -> tuple[dict[str, list[Recorded]], list[Evidence]]:
    """Rollouts of one run of each policy, and the gold plans of their tasks."""
    with build_session(load_preset("grid16").environment) as session:
        tasks = {task.id: task for task in session.tasks("train")}
    pages: dict[str, Observation] = {}
    found: dict[str, list[Recorded]] = {}
    for policy in load_preset("grid16").policies:
        files = sorted(run.glob(f"cells/{policy}-grpo-*/seed0/rollouts.jsonl"))
        if len(files) != 1:
            raise ConfigError(f"{run} has no rollouts of the policy '{policy}'. Give the folder of a finished grid16.")
        found[policy] = random.Random(0).sample(read(files[0], tasks, pages), count)
    used = sorted({item.task_id for items in found.values() for item in items})
    return found, [_gold(tasks[name], pages) for name in used[:count]]


def _gold(task: Task, pages: dict[str, Observation]) -> Evidence:
    page = pages[task.site]
    return as_planned(task.instruction, page, gold_plan(task, page))


def reward_of(folder: str, similarity: str) -> Reward:
    """FLIP with the inverter of a folder, or `plain`."""
    chosen: dict[str, Any] = (
        {"inverter": "plain"} if folder == "plain" else {"inverter_options": {"checkpoint": folder}}
    )
    return registry.build("reward", "flip", {**chosen, "similarity": similarity})


def row_of(folder: str, similarity: str, found: dict[str, list[Recorded]], gold: Sequence[Evidence]) -> Row:
    """One inverter on all plans."""
    reward = reward_of(folder, similarity)
    on_gold = float(np.mean([item.value for item in scores(reward, gold)]))
    started, aurocs = time.process_time(), {}
    for policy, items in found.items():
        values = np.array([item.value for item in scores(reward, [item.evidence for item in items])])
        aurocs[policy] = auroc(values, np.array([is_right(item) for item in items]))
    spent = 1e3 * (time.process_time() - started) / sum(map(len, found.values()))
    return Row(name=Path(folder).name, aurocs=aurocs, on_gold=on_gold, milliseconds=spent)


def show(rows: Iterable[Row], found: dict[str, list[Recorded]]) -> None:
    """Print the table, each row as it is done."""
    heads = [f"{name} ({100 * np.mean(list(map(is_right, items))):.0f} % right)" for name, items in found.items()]
    print("| inverter | " + " | ".join(heads) + " | gold plans | ms a state |\n|---" + "|--:" * (len(heads) + 2) + "|")
    for row in rows:
        cells = " | ".join(f"{row.aurocs[policy]:.3f}" for policy in found)
        print(f"| {row.name} | {cells} | {row.on_gold:.2f} | {row.milliseconds:.1f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run of grid16")
    parser.add_argument("inverters", nargs="+", help="folders of inverters, or plain")
    parser.add_argument("--similarity", default="fields", choices=["words", "fields", "pmi"])
    parser.add_argument("--count", type=int, default=120, help="rollouts of each policy")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    recorded, gold_plans = plans(chosen.run, chosen.count)
    show((row_of(name, chosen.similarity, recorded, gold_plans) for name in chosen.inverters), recorded)
