"""Surrogates against the sampler's law on shipped policies: `python -m studies.shipped --page PAGE`.

For each family, rule, number of steps and temperature: texts of the shipped warm start on tasks of `val`, their
log-likelihood under the rule by importance sampling over its own paths, with its error, and how each surrogate's change
follows the true one when all weights move by a small random step.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A way to write.

    Attributes:
        has_noise: Whether the order is drawn, so that a text has many paths. Elsewhere only what is drawn behind the
            EOS tells paths apart.
    """

    sampler: str
    options: dict[str, Any]
    has_noise: bool = False


RULES: dict[str, dict[str, Rule]] = {
    "masked": {
        "low_confidence, 8 steps": Rule(sampler="low_confidence", options={"num_steps": 8}),
        "low_confidence, 32 steps": Rule(sampler="low_confidence", options={"num_steps": 32}),
        "threshold .97": Rule(sampler="threshold", options={"threshold": 0.97}),
        "soft_threshold .97": Rule(sampler="soft_threshold", options={"threshold": 0.97}, has_noise=True),
        "random, 8 steps": Rule(sampler="random", options={"num_steps": 8}, has_noise=True),
        "random, 32 steps": Rule(sampler="random", options={"num_steps": 32}, has_noise=True),
    },
    "block": {
        "low_confidence, 32 steps": Rule(sampler="low_confidence", options={"num_steps": 32}),
        "threshold .97": Rule(sampler="threshold", options={"threshold": 0.97}),
        "random, 32 steps": Rule(sampler="random", options={"num_steps": 32}, has_noise=True),
    },
    "slot": {
        "slots .95, .98": Rule(sampler="slots", options={"slot_threshold": 0.95, "token_threshold": 0.98}),
        "slots .6, .3": Rule(sampler="slots", options={"slot_threshold": 0.6, "token_threshold": 0.3}),
    },
}
TEMPERATURES = (0.5, 1.0)
# Of a rule without noise: two tell how much what stands behind the EOS matters.
FEW_PATHS = 2
BEGIN, END = "<!-- table of python -m studies.shipped -->", "<!-- end of table -->"


def measure(given: argparse.Namespace) -> dict[str, Found]:
    """Every setting that is not measured yet; each is kept at once."""
    path = given.out / "shipped.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for family, rules in RULES.items():
        keys = {(label, t): f"{family} | {label} | {t}" for label in rules for t in TEMPERATURES}
        owed = [item for item, key in keys.items() if key not in known and any(part in key for part in given.only)]
        if not owed:
            continue
        policy = load_policy(f"builtin:{family}")
        other, prompts = moved(policy, size=MOVE, seed=0), prompts_of(policy, given.plans)
        for label, temperature in owed:
            rule = rules[label]
            sampler = registry.build("sampler", rule.sampler, rule.options, temperature=temperature)
            num_paths = given.paths if rule.has_noise else FEW_PATHS
            found = examine(policy, other, sampler, prompts, num_paths=num_paths, seed=0)
            known[keys[label, temperature]] = asdict(found)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(known))
            print(f"{keys[label, temperature]}: {found.log_prob:.1f} nats, error {found.error:.2f}", flush=True)
    return {key: _found(known[key]) for key in _order(known)}


def _order(known: dict[str, Any]) -> list[str]:
    """As the settings are listed, whatever the order in which they were measured."""
    listed = [f"{family} | {label} | {t}" for family, rules in RULES.items() for label in rules for t in TEMPERATURES]
    return [key for key in listed if key in known]


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
    lines = ["| family | rule | T | texts | steps | log-likelihood | error | paths | effective | change, sd | error |"]
    lines += ["|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"]
    for key, item in found.items():
        lines.append(
            f"| {key} | {item.num_texts} | {item.nfe:.1f} | {item.log_prob:.2f} | {item.error:.2f} | "
            f"{item.num_paths} | {item.effective:.1f} | {item.change_spread:.3f} | {item.change_error:.3f} |"
        )
    lines += ["", f"| family | rule | T | {' | '.join(SURROGATES)} |", "|---|---|--:" + "|--:" * len(SURROGATES) + "|"]
    for key, item in found.items():
        cells = [
            f"{one.change:.2f} [{one.low:.2f}, {one.high:.2f}] ({one.bias:+.3f})" for one in item.surrogates.values()
        ]
        if not item.is_known:
            cells = [f"truth too uncertain ({one.bias:+.3f})" for one in item.surrogates.values()]
        lines.append(f"| {key} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", type=int, default=24, help="texts of each setting")
    parser.add_argument("--paths", type=int, default=8, help="paths of each text under rules with noise of their own")
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
