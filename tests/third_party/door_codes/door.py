"""Doors: type the code of the instruction, then press the button."""

from dataclasses import dataclass
from typing import ClassVar

from dllm_rl.environment import Environment
from dllm_rl.records import Control, FieldResult, GoldField, Observation, Outcome, Task, parse_plan
from dllm_rl.registry import register
from dllm_rl.seeding import python_random

PAGE = Observation(
    titles=("Door",),
    controls=(
        Control(ref="p1.e1", kind="text", name="Code", field="code"),
        Control(ref="p1.e2", kind="button", name="Open"),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorSettings:
    """The options that a preset may set.

    num_digits: Digits of a code.
    num_tasks: Number of tasks of each split.
    """

    num_digits: int = 4
    num_tasks: int = 16


@register("environment", "door")
class DoorEnvironment(Environment):
    """A door opens where the right code was typed before the button was pressed."""

    version: ClassVar[int] = 1

    def __init__(self, settings: DoorSettings | None = None) -> None:
        self.settings = settings or DoorSettings()

    def tasks(self, split: str) -> tuple[Task, ...]:
        random = python_random(0, "door", split)
        codes = [
            "".join(random.choices("0123456789", k=self.settings.num_digits)) for _ in range(self.settings.num_tasks)
        ]
        return tuple(
            Task(
                id=f"{split}/door-{number}",
                split=split,
                site="door",
                instruction=f"Open the door. Code: {code}",
                gold=(GoldField(name="code", kind="text", wanted=(code,)),),
            )
            for number, code in enumerate(codes)
        )

    async def observe(self, task: Task) -> Observation:
        return PAGE

    async def run(self, task: Task, plan: str, *, isolation: str | None = None, executor: str | None = None) -> Outcome:
        parsed, typed, is_pressed = parse_plan(plan), "", False
        for action in parsed.actions:
            if (action.verb, action.ref) == ("fill", "p1.e1"):
                typed = action.value or ""
            if (action.verb, action.ref) == ("submit", "p1.e2"):
                is_pressed = True
                break
        (gold,) = task.gold
        is_right = (typed,) == gold.wanted
        field = FieldResult(
            name=gold.name,
            wanted=gold.wanted,
            server=(typed,) if is_pressed else None,
            dom=(typed,),
            is_correct=is_right,
            is_default=False,
        )
        return Outcome(
            task_id=task.id,
            is_parsed=parsed.is_parsed,
            is_submitted=is_pressed and is_right,
            num_submissions=int(is_pressed),
            fields=(field,),
        )

    def gold_plan(self, task: Task, observation: Observation) -> str:
        return f'fill p1.e1 "{task.gold[0].wanted[0]}"\nsubmit p1.e2'
