"""Text-only environments: a plan is judged by a few lines of Python, so that an idea is tried in seconds.

`toy_sort`: write the digits of the instruction in rising order. `toy_copy`: write a plan that copies the fields of the
instruction into the controls of a page, in the plan language. Both keep the real environment's records, so trainer,
evaluation and statistics do not know the difference; nothing that is learned here says anything about the web.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, Literal

from dllm_rl import seeding
from dllm_rl.environment import Environment
from dllm_rl.records.plan import VERBS_BY_KIND, Action, ParseError, parse_plan, render_action
from dllm_rl.records.tasks import ActionResult, Control, FieldResult, GoldField, Observation, Outcome, Task
from dllm_rl.records.truth import accuracy_of
from dllm_rl.registry import register

NUM_TASKS = {"train": 512, "val": 64, "test": 128, "test_layout": 128}
NAMES = ("Anna", "Karl", "Mia", "Omar", "Rosa", "Yuki", "Ben", "Lena", "Ivo", "Sara", "Tom", "Nora")
TOWNS = ("Rome", "Oslo", "Lima", "Kyiv", "Bern", "Cairo", "Delhi", "Quito", "Riga", "Sofia", "Tunis", "Hanoi")
PLANS = ("Basic", "Pro", "Team", "Free")
LABELS = {"Name": NAMES, "Town": TOWNS, "Plan": PLANS}


class TextEnvironment(Environment):
    """Base: tasks by split, and judgement of a text. A subclass makes a task from a random stream, and judges."""

    def __init__(self) -> None:
        self._tasks: dict[str, tuple[Task, ...]] = {}

    @abstractmethod
    def make_task(self, split: str, index: int, gold: Any) -> Task:
        """The task of one gold answer."""

    @abstractmethod
    def draw_gold(self, random: Any) -> Any:
        """A hashable gold answer from a `random.Random`."""

    @abstractmethod
    def page(self, task: Task) -> Observation:
        """What the policy may read beside the instruction."""

    @abstractmethod
    def gold_plan(self, task: Task, observation: Observation) -> str:
        """The text that does what the task asks for."""

    @abstractmethod
    def judge(self, task: Task, plan: str) -> Outcome:
        """What becomes of a text."""

    def tasks(self, split: str) -> tuple[Task, ...]:
        """All tasks of a split; no gold answer is in two splits."""
        if not self._tasks:
            random, seen = seeding.python_random(0, type(self).__name__), set()
            for name, count in NUM_TASKS.items():
                golds: list[Any] = []
                while len(golds) < count:
                    gold = self.draw_gold(random)
                    if gold not in seen:
                        seen.add(gold)
                        golds.append(gold)
                self._tasks[name] = tuple(self.make_task(name, index, gold) for index, gold in enumerate(golds))
        return self._tasks[split]

    async def observe(self, task: Task) -> Observation:
        """The page of a task."""
        return self.page(task)

    async def run(self, task: Task, plan: str, *, isolation: str | None = None, executor: str | None = None) -> Outcome:
        """Judge a text."""
        return self.judge(task, plan)

    async def score(self, task: Task, plan: str) -> float:
        """Share of right fields; the gold text scores 1."""
        return accuracy_of(self.judge(task, plan))


@register("environment", "toy_sort")
class ToySort(TextEnvironment):
    """Sort five digits: `task: 52913` wants `12359`."""

    num_digits = 5

    def draw_gold(self, random: Any) -> tuple[str, str]:
        """The digits as given, and sorted."""
        given = "".join(random.choice("0123456789") for _ in range(self.num_digits))
        return given, "".join(sorted(given))

    def make_task(self, split: str, index: int, gold: tuple[str, str]) -> Task:
        """One gold field a place."""
        given, wanted = gold
        places = tuple(GoldField(name=str(i + 1), kind="text", wanted=(digit,)) for i, digit in enumerate(wanted))
        return Task(id=f"{split}/sort-{index}", split=split, site="toy_sort", instruction=given, gold=places)

    def page(self, task: Task) -> Observation:
        """There is nothing to read."""
        return Observation(titles=(), controls=())

    def gold_plan(self, task: Task, observation: Observation) -> str:
        """The sorted digits."""
        return "".join(place.wanted[0] for place in task.gold)

    def judge(self, task: Task, plan: str) -> Outcome:
        """A place is right where it holds the digit; handed in is what consists of as many digits as were given."""
        is_whole = len(plan) == len(task.gold) and plan.isdigit()
        found = {place.name: ((plan[i],) if i < len(plan) else ()) for i, place in enumerate(task.gold)}
        return outcome(task, found, is_parsed=plan.isdigit(), is_submitted=is_whole)


@register("environment", "toy_copy")
class ToyCopy(TextEnvironment):
    """Copy two of three fields of the instruction into a page's controls and submit, in the plan language."""

    def draw_gold(self, random: Any) -> tuple[tuple[str, str], ...]:
        """Two (label, value) pairs, in the order of the page; the instruction may turn them round."""
        labels = random.sample(sorted(LABELS), 2)
        return (*((label, random.choice(LABELS[label])) for label in labels), (random.choice("01"), ""))

    def make_task(self, split: str, index: int, gold: tuple[tuple[str, str], ...]) -> Task:
        """One gold field a pair."""
        *pairs, (is_turned, _) = gold
        shown = pairs[::-1] if is_turned == "1" else pairs
        return Task(
            id=f"{split}/copy-{index}",
            split=split,
            site="toy_copy",
            instruction="; ".join(f"{label}: {value}" for label, value in shown),
            gold=tuple(GoldField(name=label, kind="text", wanted=(value,), label=label) for label, value in pairs),
        )

    def page(self, task: Task) -> Observation:
        """One text control a field, and a button."""
        fields = [
            Control(ref=f"p1.e{i + 1}", kind="text", name=item.label, field=item.name)
            for i, item in enumerate(task.gold)
        ]
        button = Control(ref=f"p1.e{len(fields) + 1}", kind="button", name="Send")
        return Observation(titles=("Form",), controls=(*fields, button))

    def gold_plan(self, task: Task, observation: Observation) -> str:
        """Fill in every control, then submit."""
        lines = [f'fill p1.e{i + 1} "{item.wanted[0]}"' for i, item in enumerate(task.gold)]
        return "\n".join([*lines, f"submit p1.e{len(lines) + 1}"])

    def judge(self, task: Task, plan: str) -> Outcome:
        """Fills write a value, the first press of the button hands the form in, and the rest is not read."""
        page, parsed = self.page(task), parse_plan(plan)
        found: dict[str, tuple[str, ...]] = {item.name: () for item in task.gold}
        results = [_malformed(error) for error in parsed.errors]
        is_submitted = False
        for action in parsed.actions:
            control = page.control(action.ref)
            fits = control is not None and action.verb in VERBS_BY_KIND[control.kind]
            if is_submitted or control is None or not fits:
                results.append(_result(action, "skipped" if is_submitted else "failed"))
                continue
            if control.kind == "button":
                is_submitted = True
            elif action.verb == "fill":
                found[control.field] = (action.value or "",)
            results.append(_result(action, "ok", note="submitted" if is_submitted else ""))
        judged = outcome(task, found, is_parsed=not parsed.errors, is_submitted=is_submitted)
        return replace(judged, actions=tuple(sorted(results, key=lambda item: item.line)))


def _result(action: Action, status: Literal["ok", "failed", "skipped"], *, note: str = "") -> ActionResult:
    return ActionResult(line=action.line, text=render_action(action), status=status, note=note)


def _malformed(error: ParseError) -> ActionResult:
    return ActionResult(line=error.line, text=error.text, status="malformed", note=str(error))


def outcome(task: Task, found: dict[str, tuple[str, ...]], *, is_parsed: bool, is_submitted: bool) -> Outcome:
    """The record of what a text left in the fields of its task."""
    return Outcome(
        task_id=task.id,
        is_parsed=is_parsed,
        is_submitted=is_submitted,
        num_submissions=int(is_submitted),
        pages_reached=1,
        fields=tuple(
            FieldResult(
                name=item.name,
                wanted=item.wanted,
                server=found[item.name] if is_submitted else None,
                dom=found[item.name],
                is_correct=found[item.name] == item.wanted,
                is_default=False,
            )
            for item in task.gold
        ),
    )
