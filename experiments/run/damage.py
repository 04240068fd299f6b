"""Right plans with one thing spoilt each: how a judge is probed for the errors that training would find."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random

from dllm_rl.errors import ConfigError
from dllm_rl.records.evidence_file import Labelled
from dllm_rl.records.plan import Action, parse_plan, render_plan
from dllm_rl.records.tasks import Observation, Task
from dllm_rl.seeding import python_random
from dllm_rl.session import Session
from experiments.run.evidence import RecordedPlan, evidence_of

# Values that were seen to be written, by the kind of control.
Pool = Mapping[str, Sequence[str]]


def damaged_evidence(
    session: Session, tasks: Sequence[Task], *, seed: int = 0, on_result: Callable[[int, int], None] | None = None
) -> list[Labelled]:
    """Play the gold plan of each task, and every damaged version that its page allows; label them by the truth.

    The error of a damaged one is the name of its damage. What succeeds all the same is left out.
    Raises ConfigError where the environment has no gold plans.
    """
    pages = session.observe_many(tasks)
    gold = [session.gold_plan(task) for task in tasks]
    pool = _values(gold, pages)
    plans = []
    for task, page, plan in zip(tasks, pages, gold, strict=True):
        versions = {"": plan} | damages(plan, page, task.instruction, pool, python_random(seed, "damage", task.id))
        plans += [RecordedPlan(task_id=task.id, plan=text, source=name) for name, text in versions.items()]
    played = evidence_of(session, plans, on_result=on_result)
    found = [replace(item, error=item.source, source="damaged" if item.source else "gold") for item in played]
    found = [item for item in found if item.success == (not item.error)]
    if not any(item.error for item in found):
        raise ConfigError(f"none of {len(tasks)} gold plans could be damaged: none of them writes or chooses anything.")
    return found


def damages(plan: str, page: Observation, instruction: str, pool: Pool, chance: Random) -> dict[str, str]:
    """Damaged versions of a plan by name, each with one thing wrong, as far as the page allows them."""
    actions = list(parse_plan(plan).actions)
    written = [at for at, item in enumerate(actions) if item.verb in ("fill", "select")]
    typed = [at for at in written if actions[at].verb == "fill"]
    chance.shuffle(written)
    chance.shuffle(typed)
    found = {
        "wrong value": _wrong_value(actions, written, page, pool),
        "swapped values": _swapped(actions, typed, page),
        "wrong control": _wrong_control(actions, typed, page),
        "echo": _echo(actions, typed, page, instruction),
        "not submitted": actions[:-1] if actions and actions[-1].verb in ("submit", "click", "press") else None,
    }
    return {name: render_plan(tuple(changed)) for name, changed in found.items() if changed is not None}


def _values(plans: Sequence[str], pages: Sequence[Observation]) -> Pool:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for plan, page in zip(plans, pages, strict=True):
        for action in parse_plan(plan).actions:
            control = page.control(action.ref)
            if control is not None and action.verb == "fill":
                found[control.kind].add(action.value or "")
    return {kind: sorted(values) for kind, values in found.items()}


def _with(actions: Sequence[Action], changed: Mapping[int, Action]) -> list[Action]:
    """The actions, some of them replaced by their place."""
    return [changed.get(at, item) for at, item in enumerate(actions)]


def _wrong_value(
    actions: Sequence[Action], places: Sequence[int], page: Observation, pool: Pool
) -> list[Action] | None:
    """Another value of the same kind: of the control's own options, or one that another task asks for."""
    for at in places:
        item, control = actions[at], page.control(actions[at].ref)
        known = () if control is None else control.options or pool.get(control.kind, ())
        other = next((value for value in known if value.strip() and value != item.value), None)
        if other is not None:
            return _with(actions, {at: replace(item, value=other)})
    return None


def _swapped(actions: Sequence[Action], places: Sequence[int], page: Observation) -> list[Action] | None:
    """The values of two fields of one kind in each other's place."""
    for one, two in itertools.combinations(places, 2):
        first, second = actions[one], actions[two]
        if first.value != second.value and _kind(page, first.ref) == _kind(page, second.ref):
            return _with(actions, {one: replace(first, value=second.value), two: replace(second, value=first.value)})
    return None


def _wrong_control(actions: Sequence[Action], places: Sequence[int], page: Observation) -> list[Action] | None:
    """A value in another field that takes it and that the task leaves alone; its own stays as it was."""
    used = {item.ref for item in actions}
    for at in places:
        kind = _kind(page, actions[at].ref)
        free = [item.ref for item in page.controls if item.kind == kind and item.ref not in used and not item.disabled]
        if free:
            return _with(actions, {at: replace(actions[at], ref=free[0])})
    return None


def _echo(actions: Sequence[Action], places: Sequence[int], page: Observation, instruction: str) -> list[Action] | None:
    """The instruction itself in a field of free text."""
    for at in places:
        if _kind(page, actions[at].ref) in ("text", "textarea"):
            return _with(actions, {at: replace(actions[at], value=instruction)})
    return None


def _kind(page: Observation, ref: str) -> str | None:
    control = page.control(ref)
    return None if control is None else control.kind
