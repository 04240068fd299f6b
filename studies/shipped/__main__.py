"""Surrogates against the sampler's law on shipped policies: `python -m studies.shipped --page PAGE`.

For each family, rule, number of steps and temperature: texts of the shipped warm start on tasks of `val`, their
log-likelihood under the rule by importance sampling over its own paths, with its error, and how each surrogate's change
follows the true one when all weights move by a small random step.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dllm_rl import registry
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.loading import load_policy
from dllm_rl.records.tasks import render_prompt
from dllm_rl.records.types import Prompts
from harness.sites import expected_page, make_site, make_tasks
from studies.shipped.surrogates import SURROGATES, Found, Judged, examine, moved

MOVE = 0.005
RULES: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "masked": {
        "low_confidence, 8 steps": ("low_confidence", {"num_steps": 8}),
        "low_confidence, 32 steps": ("low_confidence", {"num_steps": 32}),
        "threshold .97": ("threshold", {"threshold": 0.97}),
        "soft_threshold .97": ("soft_threshold", {"threshold": 0.97}),
        "random, 8 steps": ("random", {"num_steps": 8}),
        "random, 32 steps": ("random", {"num_steps": 32}),
    },
    "block": {
        "low_confidence, 32 steps": ("low_confidence", {"num_steps": 32}),
        "threshold .97": ("threshold", {"threshold": 0.97}),
        "random, 32 steps": ("random", {"num_steps": 32}),
    },
}
TEMPERATURES = (0.5, 1.0)
BEGIN, END = "<!-- table of python -m studies.shipped -->", "<!-- end of table -->"


def measure(given: argparse.Namespace) -> dict[str, Found]:
    """Every setting that is not measured yet; each is kept at once."""
    path = given.out / "shipped.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for family, rules in RULES.items():
        policy = load_policy(f"builtin:{family}")
        other, prompts = moved(policy, size=MOVE, seed=0), prompts_of(policy, given.plans)
        for label, (name, options) in rules.items():
            for temperature in TEMPERATURES:
                key = f"{family} | {label} | {temperature}"
                if key in known or not any(part in key for part in given.only):
                    continue
                rule = registry.build("sampler", name, options, temperature=temperature)
                found = examine(policy, other, rule, prompts, num_paths=given.paths, seed=0)
                known[key] = asdict(found)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(known))
                print(f"{key}: {found.log_prob:.1f} nats, error {found.error:.2f}", flush=True)
    return {key: _found(values) for key, values in known.items()}


def prompts_of(policy: BasePolicy, count: int) -> Prompts:
    """The first tasks of `val`."""
    tasks = make_tasks("val", count=count)
    texts = [render_prompt(task, expected_page(make_site(task.site))) for task in tasks]
    return policy.prompts(texts, list(range(count)))


def _found(values: dict[str, Any]) -> Found:
    judged = {name: Judged(**item) for name, item in values["surrogates"].items()}
    return Found(**{**values, "surrogates": judged})


def table(found: dict[str, Found]) -> list[str]:
    """Two tables: how surely the truth is known, and what each surrogate is worth."""
    lines = ["| family | rule | T | steps | log-likelihood | its error | change, sd over texts | its error |"]
    lines += ["|---|---|--:|--:|--:|--:|--:|--:|"]
    for key, item in found.items():
        family, rule, temperature = key.split(" | ")
        lines.append(
            f"| {family} | {rule} | {temperature} | {item.nfe:.1f} | {item.log_prob:.2f} | {item.error:.2f} | "
            f"{item.change_spread:.3f} | {item.change_error:.3f} |"
        )
    head = " | ".join(SURROGATES)
    lines += ["", f"| family | rule | T | {head} |", "|---|---|--:" + "|--:" * len(SURROGATES) + "|"]
    for key, item in found.items():
        family, rule, temperature = key.split(" | ")
        cells = [
            f"{one.change:.2f} [{one.low:.2f}, {one.high:.2f}] ({one.bias:+.3f})" for one in item.surrogates.values()
        ]
        lines.append(f"| {family} | {rule} | {temperature} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", type=int, default=32, help="texts of each setting")
    parser.add_argument("--paths", type=int, default=16, help="paths of each text")
    parser.add_argument("--only", nargs="+", default=[""], help="settings whose names hold one of these; default: all")
    parser.add_argument("--out", type=Path, default=Path("runs/shipped"))
    parser.add_argument("--page", type=Path, help="write the tables into this page, between its markers")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = table(measure(given))
    print("\n".join(lines))
    if given.page is not None:
        before, rest = given.page.read_text().split(BEGIN)
        given.page.write_text("\n".join([f"{before}{BEGIN}", "", *lines, "", END + rest.split(END)[1]]))


if __name__ == "__main__":
    main()
