"""What plans earn that did not do the task, as a table: `python -m benchmarks.gaming_audit [tasks]`."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable

from dllm_rl import registry
from dllm_rl.records.tasks import Outcome
from dllm_rl.session import Session
from harness.environments import FormEnvironment, FormSettings
from harness.judge import gaming_plans
from harness.rewards import RewardRecord


def main(num_tasks: int) -> None:
    found: dict[str, list[Outcome]] = defaultdict(list)
    with Session(FormEnvironment(FormSettings(counts={"test": num_tasks}))) as session:
        tasks = session.tasks("test")
        triples = [
            (name, task, plan)
            for task, page in zip(tasks, session.observe_many(tasks), strict=True)
            for name, plan in gaming_plans(task, page, session.gold_plan(task)).items()
        ]
        outcomes = session.run_many([(task, plan) for _, task, plan in triples], isolation="page", executor="fast")
    for (name, _, _), outcome in zip(triples, outcomes, strict=True):
        found[name].append(outcome)
    print(f"{num_tasks} tasks of `test`; mean / highest reward; share above .5 without success\n")
    rewards = dict(registry.items("reward"))
    print("| plan | " + " | ".join(rewards) + " |\n|---|" + "---|" * len(rewards))
    for name, ended in found.items():
        valid = [outcome for outcome in ended if outcome.is_valid]
        cells = [_cell(valid, cls()) for cls in rewards.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")


def _cell(outcomes: list[Outcome], reward: Callable[[Outcome], RewardRecord]) -> str:
    values = [reward(outcome).value for outcome in outcomes]
    above = sum(value > 0.5 and not outcome.is_success for value, outcome in zip(values, outcomes, strict=True))
    return f"{sum(values) / len(values):.2f} / {max(values):.2f}; {100 * above / len(values):.0f} %"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 64)
