"""What plans earn that did not do the task, as a table: `python -m benchmarks.gaming_audit [tasks]`."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator

from dllm_rl import registry
from dllm_rl.records.plan import Action, render_plan
from dllm_rl.records.tasks import Control, Observation, Outcome, Task
from dllm_rl.session import Session
from harness.environments import FormEnvironment, FormSettings
from harness.rewards import OutcomeReward

_TYPED = {"text": "a", "email": "a@b.org", "tel": "5551234567", "number": "1", "date": "2026-01-15", "textarea": "a"}


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
    rewards = {name: cls() for name, cls in registry.items("reward") if issubclass(cls, OutcomeReward)}
    print("| plan | " + " | ".join(rewards) + " |\n|---|" + "---|" * len(rewards))
    for name, ended in found.items():
        valid = [outcome for outcome in ended if outcome.is_valid]
        cells = [_cell(valid, reward) for reward in rewards.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")


def _cell(outcomes: list[Outcome], reward: OutcomeReward) -> str:
    values = [reward(outcome) for outcome in outcomes]
    above = sum(value > 0.5 and not outcome.is_success for value, outcome in zip(values, outcomes, strict=True))
    return f"{sum(values) / len(values):.2f} / {max(values):.2f}; {100 * above / len(values):.0f} %"


def gaming_plans(task: Task, page: Observation, gold: str) -> dict[str, str]:
    """Plans by what they try.

    Args:
        gold: The task's own plan, of which some leave out the end.
    """
    buttons = [control for control in page.controls if control.kind == "button"]
    submit = [_press(button) for button in buttons]
    first = [*_first_answers(page), *submit]
    lines = gold.split("\n")
    unasked = [render_plan((action,)) for action in _first_answers(page) if action.ref not in gold.split()]
    only_one = [line for line in lines if line.split(" ")[0] in ("next", "submit")]
    return {
        "submit only": render_plan(tuple(submit)),
        "submit five times": render_plan(tuple(submit * 5)),
        "first option everywhere, submit": render_plan(_in_order(page, first)),
        "type everything right and leave": "\n".join(line for line in lines if not line.startswith("submit ")),
        "one field right, submit": "\n".join([lines[0], *only_one]),
        "everything right, submit twice": f"{gold}\n{lines[-1]}",
        "everything right but one field": "\n".join(lines[1:]),
        "everything right and whatever else there is": "\n".join(_beside(lines, unasked)),
    }


def _beside(lines: list[str], more: list[str]) -> list[str]:
    """Lines of the first page, before it is left."""
    pages = {line.split(" ")[1].partition(".")[0] for line in lines[:1]}
    added = [line for line in more if line.split(" ")[1].partition(".")[0] in pages]
    at = next(at for at, line in enumerate(lines) if line.split(" ")[0] in ("next", "submit"))
    return [*lines[:at], *added, *lines[at:]]


def _press(button: Control) -> Action:
    return Action(verb="click", ref=button.ref)


def _first_answers(page: Observation) -> Iterator[Action]:
    """The same answer to every question, whatever was asked for."""
    seen: set[str] = set()
    for control in page.controls:
        if control.kind in _TYPED:
            yield Action(verb="fill", ref=control.ref, value=_TYPED[control.kind])
        elif control.kind in ("select", "multiselect") and control.options:
            yield Action(verb="select", ref=control.ref, value=control.options[0])
        elif control.kind == "radio" and control.field not in seen:
            yield Action(verb="choose", ref=control.ref)
        elif control.kind == "checkbox":
            yield Action(verb="check", ref=control.ref)
        seen.add(control.field)


def _in_order(page: Observation, actions: list[Action]) -> tuple[Action, ...]:
    order = {control.ref: at for at, control in enumerate(page.controls)}
    return tuple(sorted(actions, key=lambda action: order[action.ref]))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 64)
