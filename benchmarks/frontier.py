"""Quality against forwards: parallel decoding of the shipped masked policy, paired with its full-step decoding.

`python -m benchmarks.frontier [--tasks 1000]`. Each arm writes every task of `val` greedily; right means equal
to the gold plan, without a browser. The reference is `low_confidence` with one token a step. Differences are paired by
task, with a 95 % interval (`experiments.analysis.variance.mean_test`). NFE is a plan's own: the forwards that wrote in
its row. Kept part by part: a run that was cut off goes on. One thread.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from benchmarks.plans import decode, sheet
from dllm_rl import registry
from dllm_rl.policies.loading import load_policy
from dllm_rl.records.types import Completions
from experiments.analysis.variance import mean_test

REFERENCE = "low_confidence, one a step"
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    REFERENCE: ("low_confidence", {}),
    "low_confidence, 32 steps": ("low_confidence", {"num_steps": 32}),
    "low_confidence, 16 steps": ("low_confidence", {"num_steps": 16}),
    "threshold .99": ("threshold", {"threshold": 0.99}),
    "threshold .97": ("threshold", {"threshold": 0.97}),
    "threshold .9": ("threshold", {"threshold": 0.9}),
    "threshold .7": ("threshold", {"threshold": 0.7}),
    "entropy_bound .01": ("entropy_bound", {"gamma": 0.01}),
    "entropy_bound .1": ("entropy_bound", {"gamma": 0.1}),
    "entropy_bound .5": ("entropy_bound", {"gamma": 0.5}),
    "factor 1": ("factor", {"factor": 1.0}),
    "factor .3": ("factor", {"factor": 0.3}),
    "klass": ("klass", {}),
    "dilated": ("dilated", {}),
    "dilated, blocks of 25": ("dilated", {"block_length": 25}),
    "soft_threshold .97": ("soft_threshold", {"threshold": 0.97, "num_steps": None}),
    "epsilon_greedy .97": ("epsilon_greedy", {"threshold": 0.97}),
    "revise .9": ("revise", {"threshold": 0.9}),
    "revise .7": ("revise", {"threshold": 0.7}),
    "rpd": ("rpd", {}),
    "rpd .97": ("rpd", {"threshold": 0.97, "least_confidence": 0.9}),
    "smc .9, 4 canvases, T 1": ("smc", {"threshold": 0.9, "temperature": 1.0}),
    "threshold .97, blocks of 25": ("threshold", {"threshold": 0.97, "block_length": 25}),
    "threshold .97, prefix": ("threshold", {"threshold": 0.97, "block_length": 25, "cache": "prefix"}),
    "threshold .97, dual": ("threshold", {"threshold": 0.97, "block_length": 25, "cache": "dual"}),
    "low_confidence, blocks of 25": ("low_confidence", {"block_length": 25}),
    "low_confidence, prefix": ("low_confidence", {"block_length": 25, "cache": "prefix"}),
    "low_confidence, dual": ("low_confidence", {"block_length": 25, "cache": "dual"}),
    "threshold .9 + grammar": ("threshold", {"threshold": 0.9, "grammar": True}),
    "entropy_bound .1 + grammar": ("entropy_bound", {"gamma": 0.1, "grammar": True}),
}
PART = 40
COLUMNS = (
    "decoding", "tasks", "right", "difference (points)", "95 % interval", "NFE", "of full", "parses", "ms a plan"
)  # fmt: skip


def forwards(out: Completions) -> list[int]:
    """How many forwards wrote something in each row."""
    return [int(steps[steps >= 0].unique().numel()) for steps in out.trajectory.commit_step]


def measure(given: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Draw what is missing, arm by arm within each part of the tasks."""
    known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    policy, tasks = load_policy("builtin:masked"), sheet(given.tasks)
    started = time.monotonic()
    arms = [REFERENCE, *given.arms] if given.arms else list(ARMS)
    owed = [(start, arm) for start in range(0, len(tasks), PART) for arm in arms if f"{arm} | {start}" not in known]
    for done, (start, arm) in enumerate(owed, 1):
        name, options = ARMS[arm]
        part = tasks.part(start, min(start + PART, len(tasks)))
        settings = {"temperature": 0.0, "num_steps": policy.facts.canvas_length, **options}
        sampler = registry.get("sampler", name)(**settings)
        before = time.process_time()
        out = sampler.generate(policy, part.prompts(policy), seed=0)
        plans = decode(policy, out.ids)
        known[f"{arm} | {start}"] = {
            "right": part.equal(plans),
            "parsed": part.parsed(plans),
            "nfe": forwards(out),
            "seconds": time.process_time() - before,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".part").write_text(json.dumps(known))
        path.with_suffix(".part").replace(path)
        left = (time.monotonic() - started) / done * (len(owed) - done) / 60
        where = f"{arm}, tasks {start} to {start + len(part) - 1}"
        print(f"{where}: {sum(part.equal(plans))} right; about {left:.0f} min left", flush=True)
    return known


def table(known: dict[str, Any]) -> str:
    """Markdown; only parts that the reference and the arm both have."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    full = _joined(known, REFERENCE, REFERENCE)
    for arm in ARMS:
        mine, reference = _joined(known, arm, REFERENCE), _joined(known, REFERENCE, arm)
        if not mine["right"]:
            continue
        difference = 100 * (np.array(mine["right"], float) - np.array(reference["right"], float))
        count = len(difference)
        interval = "" if arm == REFERENCE else _interval(difference)
        cells = [
            arm,
            str(count),
            f"{100 * mean(mine['right']):.1f} %",
            "" if arm == REFERENCE else f"{difference.mean():+.1f}",
            interval,
            f"{mean(mine['nfe']):.1f}",
            f"{mean(mine['nfe']) / mean(full['nfe']):.2f}",
            f"{100 * mean(mine['parsed']):.1f} %",
            f"{1000 * mine['seconds'] / count:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _interval(difference: np.ndarray) -> str:
    if not difference.any():
        return "no task differs"
    test = mean_test(difference[None])
    return f"[{test.low:+.1f}, {test.high:+.1f}]"


def _joined(known: dict[str, Any], arm: str, other: str) -> dict[str, Any]:
    """What an arm did on the parts that the other has too, in the tasks' order."""
    starts = sorted(int(key.split(" | ")[1]) for key in known if key.startswith(f"{arm} | "))
    parts = [known[f"{arm} | {start}"] for start in starts if f"{other} | {start}" in known]
    joined: dict[str, Any] = {name: [x for part in parts for x in part[name]] for name in ("right", "parsed", "nfe")}
    return {**joined, "seconds": sum(part["seconds"] for part in parts)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=[arm for arm in ARMS if arm != REFERENCE],
        help="beside the reference; default: all",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bench_samplers"))
    parser.add_argument("--report", action="store_true", help="only print the table of what is there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = given.out / "frontier.json"
    known = json.loads(path.read_text()) if given.report else measure(given, path)
    print("\n" + table(known))


if __name__ == "__main__":
    main()
