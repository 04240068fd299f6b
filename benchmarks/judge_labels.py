"""Judges, FLIP and embedders on recorded rollouts of a grid: `python -m benchmarks.judge_labels runs/grid16 [options]`.

Success is what the server received when a rollout was run. Its evidence is rebuilt from its plan and its page, as
`as_planned` has it, with the page's word where the server accepted; nothing is run again, so a line that failed in the
browser counts as done. Half of the tasks give labels, the other half are audited.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.best_of_n import best_of, interval
from dllm_rl import registry
from dllm_rl.records.evidence import Evidence, as_planned, executed_state
from dllm_rl.records.tasks import Observation, Task
from dllm_rl.reward import Reward, scores
from experiments.analysis.judges import THRESHOLD, JudgeAudit, audit, corrected_success
from experiments.design.config import build_session
from experiments.design.presets import load_preset
from harness.rewards.judge import JudgeModel, fit_judge
from harness.rewards.success_words import SuccessWords
from harness.sites import expected_page, gold_plan, make_site

BUDGETS = (100, 300, 1000)
NUM_AUDITED, NUM_GROUPS = 600, 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A rollout: its evidence, its truth, the kind of its failure, and the group it was drawn in."""

    evidence: Evidence
    success: bool
    error: str
    task_id: str
    group: tuple[str, int, str]


def read(path: Path, tasks: dict[str, Task], pages: dict[str, Observation]) -> list[Recorded]:
    """The rollouts of one seed whose tasks are known."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        task = tasks.get(row["task_id"])
        if task is None or row["fault"] == "environment":
            continue
        page = pages.setdefault(task.site, expected_page(make_site(task.site)))
        evidence = with_word(as_planned(task.instruction, page, row["plan"]), is_accepted=row["submitted"])
        error = "" if row["success"] else error_of(evidence, as_planned("", page, gold_plan(task, page)), row)
        group = (str(path.parent), row["step"], task.id)
        found.append(Recorded(evidence=evidence, success=row["success"], error=error, task_id=task.id, group=group))
    return found


def with_word(evidence: Evidence, *, is_accepted: bool) -> Evidence:
    """The same with what the page said after the last press."""
    (turn,) = evidence.turns
    if not turn.actions:
        return evidence
    last = replace(turn.actions[-1], note="submitted" if is_accepted else "")
    return replace(evidence, turns=(replace(turn, actions=(*turn.actions[:-1], last)),))


def error_of(evidence: Evidence, gold: Evidence, row: dict) -> str:
    """Kind of a failure, by what the plan sets and what the gold plan sets."""
    held = {entry.label: entry.value for entry in executed_state(evidence)}
    wanted = {entry.label: entry.value for entry in executed_state(gold)}
    wrong = {label for label in wanted if held.get(label) != wanted[label]}
    if not row["submitted"]:
        return "not submitted, else right" if not wrong else "not submitted and wrong"
    if not wrong:
        return "something else"
    if len(wrong) > 1 and sorted(held.get(label, "") for label in wrong) == sorted(wanted[label] for label in wrong):
        return "swapped values"
    if any(wanted[label] in {held[other] for other in held.keys() - wanted.keys()} for label in wrong):
        return "wrong control"
    return "missing value" if all(label not in held for label in wrong) else "wrong value"


def show(name: str, found: JudgeAudit) -> None:
    """One row of the table."""
    figures = (found.precision, found.sensitivity, found.f1, found.specificity, found.auroc, found.calibration_error)
    print(f"| {name} | " + " | ".join(f"{item:.3f}" for item in figures) + " |")


def without_labels(inverter: str | None, embedder: str | None) -> dict[str, Reward]:
    """FLIP that reads the final state directly; FLIP with a trained inverter, and an embedder, where they are given."""
    found = {f"flip, plain, {name}": {"inverter": "plain", "similarity": name} for name in ("words", "fields")}
    if inverter is not None:
        trained = {"inverter_options": {"checkpoint": inverter}}
        found |= {f"flip, inverter, {name}": {**trained, "similarity": name} for name in ("fields", "pmi")}
    rewards: dict[str, Reward] = {name: registry.build("reward", "flip", options) for name, options in found.items()}
    for pays in ("both", "gate", "margin") if embedder is not None else ():
        rewards[f"embedder, {pays}"] = registry.build("reward", "embedder", {"file": embedder, "pays": pays})
    return rewards


def claims_of(reward: Reward, items: Sequence[Recorded]) -> np.ndarray:
    """Values of a reward."""
    return np.array([item.value for item in scores(reward, [item.evidence for item in items])])


def recorded(run: Path) -> tuple[list[Recorded], list[Recorded]]:
    """Rollouts of twelve runs in random order: those of half of the tasks, and those of the other half."""
    with build_session(load_preset("grid16").environment) as session:
        tasks = {task.id: task for task in session.tasks("train")}
    pages: dict[str, Observation] = {}
    files = [path for path in sorted(run.glob("cells/*/seed*/rollouts.jsonl")) if "null" not in str(path)]
    chosen = random.Random(0).sample(files, min(12, len(files)))
    items = [item for path in chosen for item in read(path, tasks, pages)]
    random.Random(0).shuffle(items)
    names = sorted(tasks)
    known = set(random.Random(1).sample(names, len(names) // 2))
    return [item for item in items if item.task_id in known], [item for item in items if item.task_id not in known]


def distilled(labels: Sequence[Recorded], budget: int) -> JudgeModel:
    """A judge of the first labels."""
    return fit_judge([item.evidence for item in labels[:budget]], [item.success for item in labels[:budget]])


def main(run: Path, rewards: dict[str, Reward]) -> None:
    """Print the tables.

    Args:
        rewards: Those that learn from no labels.
    """
    labels, others = recorded(run)
    audited = others[:NUM_AUDITED]
    truth = np.array([item.success for item in audited])
    print(f"{len(audited)} audited rollouts, {100 * truth.mean():.1f} % successes\n")
    judges = {budget: distilled(labels, budget) for budget in BUDGETS}
    claimants: dict[str, Callable[[], np.ndarray]] = {"success words": lambda: claims_of(SuccessWords(), audited)}
    for budget, judge in judges.items():
        claimants[f"{budget} labels"] = lambda judge=judge: judge.claims([item.evidence for item in audited])
    for name, reward in rewards.items():
        claimants[name] = lambda reward=reward: claims_of(reward, audited)
    claims, cost = {}, {}
    for name, claim in claimants.items():
        started = time.process_time()
        claims[name] = claim()
        cost[name] = 1e3 * (time.process_time() - started) / len(audited)
    show_audits({name: audit(found, truth, [item.error for item in audited]) for name, found in claims.items()})
    show_corrected({f"{budget} labels": claims[f"{budget} labels"] for budget in BUDGETS}, audited, truth)
    print("\ncost, ms of one core an episode: " + ", ".join(f"{name} {item:.2f}" for name, item in cost.items()))
    best_of_four(others, judges[BUDGETS[-1]], rewards)


def show_audits(audits: dict[str, JudgeAudit]) -> None:
    """Errors in all, and by kind of failure."""
    print("| judge | precision | recall | F1 | specificity | AUROC | calibration error |\n|---" + "|--:" * 6 + "|")
    for name, found in audits.items():
        show(name, found)
    kinds = [(item.name, item.count) for item in next(iter(audits.values())).classes]
    print("\nAUROC against failures of one kind (taken for success, %)\n")
    print("| judge | " + " | ".join(f"{kind} ({count})" for kind, count in kinds) + " |\n|---|" + "--:|" * len(kinds))
    for name, found in audits.items():
        by = {item.name: item for item in found.classes}
        cells = [f"{by[kind].auroc:.3f} ({100 * by[kind].false_positive_rate:.0f})" for kind, _ in kinds]
        print(f"| {name} | " + " | ".join(cells) + " |")


def show_corrected(claims: dict[str, np.ndarray], audited: Sequence[Recorded], truth: np.ndarray) -> None:
    """Success of one half of the audited rollouts, corrected by the errors on the other."""
    half = len(audited) // 2
    print(f"\ncorrected success of the second half; true {100 * truth[half:].mean():.1f} %")
    for name, own in claims.items():
        errors = audit(own[:half], truth[:half], [item.error for item in audited[:half]])
        told = float((own[half:] >= THRESHOLD).mean())
        found = corrected_success(told, len(audited) - half, errors)
        span = f"{100 * found.low:.1f} to {100 * found.high:.1f}"
        print(f"- {name}: judged {100 * told:.1f}, corrected {100 * found.rate:.1f} ({span})")


def best_of_four(items: Sequence[Recorded], model: JudgeModel, rewards: dict[str, Reward]) -> None:
    """What picking one of the four rollouts of a group is worth, with the page's word and without it."""
    groups: dict[tuple[str, int, str], list[Recorded]] = {}
    for item in items:
        groups.setdefault(item.group, []).append(item)
    whole = [group for group in groups.values() if len(group) == 4][:NUM_GROUPS]
    flat = [item for group in whole for item in group]
    truth = np.array([item.success for item in flat]).reshape(-1, 4)
    blind = [replace(item, evidence=with_word(item.evidence, is_accepted=False)) for item in flat]
    values = {
        "judge, 1000 labels": model.claims([item.evidence for item in flat]),
        "judge, before the run": model.claims([item.evidence for item in blind]),
        **{f"{name}, before the run": claims_of(reward, blind) for name, reward in rewards.items()},
        "oracle": truth.ravel().astype(float),
    }
    chance = truth.mean(axis=1)
    print(f"\nbest of 4 over {len(whole)} groups; by chance {100 * chance.mean():.1f} %\n")
    print("| ranker | best of 4 | over chance |\n|---|--:|--:|")
    for name, found in values.items():
        picked = np.array([best_of(own, done, 4) for own, done in zip(found.reshape(-1, 4), truth, strict=True)])
        low, high = interval(picked - chance)
        lift = 100 * float((picked - chance).mean())
        print(f"| {name} | {100 * picked.mean():.1f} | {lift:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}) |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run of grid16's forms")
    parser.add_argument("--inverter", help="folder of an inverter")
    parser.add_argument("--embedder", help="an embedder's file")
    chosen = parser.parse_args()
    main(chosen.run, without_labels(chosen.inverter, chosen.embedder))
