"""`dllm-rl new`: starting points of components, each a working one in a file of its own, to be changed into another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dllm_rl.errors import ConfigError

new_app = typer.Typer(help="Write the template of a component.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="Name in snake_case; also the file's.")]

# Where discovery finds each kind, and what is written there.
FOLDERS = {
    "objective": Path("objectives"),
    "sampler": Path("samplers/rules"),
    "environment": Path("harness/environments"),
    "reward": Path("harness/rewards"),
}
_HOME = Path(__file__).parents[2]
_PLURALS = {"objective": "objectives", "sampler": "samplers", "environment": "environments", "reward": "rewards"}
TEMPLATES = {
    "objective": '''\
"""{title} (paper id, equation): one sentence on what the method does, and how it differs from GRPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Loss, LossInputs, Rollouts, Views
from dllm_rl.registry import register
from objectives import BelowOne, Clip, Method, NonNegative, k3, mean_of_sequences, token_terms


@register("objective", "{name}")
@dataclass(frozen=True, kw_only=True)
class {title}(Method):
    """What a class of this name promises. Its fields are the options that a preset may set.

    Attributes:
        clip_low: How far below 1 a ratio may fall.
        clip_high: How far above 1 a ratio may rise.
    """

    name: ClassVar[str] = "{name}"
    paper: ClassVar[str] = ""
    level: ClassVar[str] = "token"
    # Raise it whenever a number changes: finished results are keyed by it.
    version: ClassVar[int] = 1

    clip_low: BelowOne = 0.2
    clip_high: NonNegative = 0.2

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """Which corrupted copies are scored: here one fully hidden canvas (exact for the autoregressive family)."""
        return process.one_step(rollouts, generator)

    def loss(self, inputs: LossInputs) -> Loss:
        """The loss as a formula, in the letters of the paper."""
        terms = token_terms(inputs, Clip(low=self.clip_low, high=self.clip_high), self.beta, k3)
        return Loss(value=mean_of_sequences(inputs.rollouts, terms.entries), metrics=terms.metrics)
''',
    "sampler": '''\
"""{title} (paper id): one sentence on which positions are written first, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from dllm_rl.registry import register
from samplers import StepContext, UnmaskingRule


@register("sampler", "{name}")
@dataclass(frozen=True, kw_only=True)
class {title}(UnmaskingRule):
    """What a class of this name promises. Its fields are the options that a preset may set.

    Attributes:
        sharpness: Weight of the log-odds against the entropy.
    """

    name: ClassVar[str] = "{name}"
    paper: ClassVar[str] = ""
    # Raise it whenever other tokens would be written: finished results are keyed by it.
    version: ClassVar[int] = 1

    sharpness: float = 1.0

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """Return the open positions to unmask in this step; tokens are drawn there afterwards."""
        return context.best(self.sharpness * context.log_odds - context.entropy, context.quota)
''',
    "environment": '''\
"""{title}: one sentence on what a task asks for, and how a plan is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dllm_rl.environment import Environment
from dllm_rl.records.tasks import FieldResult, GoldField, Observation, Outcome, Task
from dllm_rl.registry import register
from dllm_rl.seeding import python_random


@dataclass(frozen=True, kw_only=True)
class {title}Settings:
    """The options that a preset may set.

    Attributes:
        num_tasks: Number of tasks of each split.
    """

    num_tasks: int = 64


@register("environment", "{name}")
class {title}(Environment):
    """Write the number of the instruction backwards."""

    # Raise it whenever a plan would have another outcome: finished results are keyed by it.
    version: ClassVar[int] = 1

    def __init__(self, settings: {title}Settings | None = None) -> None:
        self.settings = settings or {title}Settings()

    def tasks(self, split: str) -> tuple[Task, ...]:
        """Return all tasks of a split, in a fixed order."""
        random = python_random(0, "{name}", split)
        numbers = [str(random.randrange(1000, 10_000)) for _ in range(self.settings.num_tasks)]
        return tuple(
            Task(
                id=f"{{split}}/{name}-{{index}}",
                split=split,
                site="{name}",
                instruction=number,
                gold=(GoldField(name="number", kind="text", wanted=(number[::-1],)),),
            )
            for index, number in enumerate(numbers)
        )

    async def observe(self, task: Task) -> Observation:
        """Return what a policy may read beside the instruction: here nothing."""
        return Observation(titles=(), controls=())

    async def run(self, task: Task, plan: str, *, isolation: str | None = None, executor: str | None = None) -> Outcome:
        """Run a plan once and judge it."""
        (field,) = task.gold
        found = (plan.strip(),)
        result = FieldResult(
            name=field.name,
            wanted=field.wanted,
            server=found,
            dom=found,
            is_correct=found == field.wanted,
            is_default=False,
        )
        return Outcome(task_id=task.id, is_submitted=plan.strip().isdigit(), num_submissions=1, fields=(result,))

    def gold_plan(self, task: Task, observation: Observation) -> str:
        """Return the plan that does what the task asks for."""
        return task.gold[0].wanted[0]
''',
    "reward": '''\
"""{title}: one sentence on what is paid for, and what cannot be gained by guessing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dllm_rl.records.tasks import Outcome
from dllm_rl.registry import register
from harness.rewards import OutcomeReward, accuracy_of


@register("reward", "{name}")
@dataclass(frozen=True, kw_only=True)
class {title}(OutcomeReward):
    """What a class of this name promises. Its fields are the options that a preset may set.

    Attributes:
        near_miss: The most that a plan short of success can earn.
    """

    # Raise it whenever an outcome would earn another value: finished results are keyed by it.
    version: ClassVar[int] = 1

    near_miss: float = 0.5

    def __call__(self, outcome: Outcome) -> float:
        """Return 1 for a success, else a share of `near_miss`; a pure function of the outcome."""
        return 1.0 if outcome.is_success else self.near_miss * accuracy_of(outcome) * outcome.has_changed_something
''',
}


@new_app.command("objective")
def new_objective(
    name: NameArgument, folder: Annotated[Path, typer.Option(help="Where to write it.")] = FOLDERS["objective"]
) -> None:
    """Write a working objective to start from."""
    _say(write_template("objective", name, folder), "objective")


@new_app.command("sampler")
def new_sampler(
    name: NameArgument, folder: Annotated[Path, typer.Option(help="Where to write it.")] = FOLDERS["sampler"]
) -> None:
    """Write a working unmasking rule to start from."""
    _say(write_template("sampler", name, folder), "sampler")


@new_app.command("environment")
def new_environment(
    name: NameArgument, folder: Annotated[Path, typer.Option(help="Where to write it.")] = FOLDERS["environment"]
) -> None:
    """Write a working environment to start from."""
    _say(write_template("environment", name, folder), "environment")


@new_app.command("reward")
def new_reward(
    name: NameArgument, folder: Annotated[Path, typer.Option(help="Where to write it.")] = FOLDERS["reward"]
) -> None:
    """Write a working reward to start from."""
    _say(write_template("reward", name, folder), "reward")


def _say(path: Path, kind: str) -> None:
    """Where the file is and how it is registered: where discovery finds it, or by a package's entry point."""
    if path.parent.resolve() == (_HOME / FOLDERS[kind]).resolve():
        print(f"wrote {path}. It is registered already: dllm-rl list {_PLURALS[kind]}")
        return
    print(f"wrote {path}. To register it, make it a module of a package and name it in the package's pyproject.toml:")
    print(f'\n  [project.entry-points."dllm_rl.{_PLURALS[kind]}"]\n  {path.stem} = "PACKAGE.{path.stem}"\n')
    print("`pip install --editable .` then lists it; docs/adding_an_objective.md has a whole package.")


def write_template(kind: str, name: str, folder: Path) -> Path:
    """Write `folder/<name>.py`. Raises ConfigError for a bad name, a file that exists or a folder that does not."""
    if not name.isidentifier() or name != name.lower():
        raise ConfigError(f"'{name}' is not a name for a component: use snake_case, such as my_{kind}")
    path = folder / f"{name}.py"
    if not folder.is_dir():
        raise ConfigError(
            f"no folder '{folder}': run this in a checkout of dllm_rl, or give --folder with one of your own package."
        )
    if path.exists():
        raise ConfigError(f"{path} exists already; choose another name")
    title = "".join(part.capitalize() for part in name.split("_"))
    path.write_text(TEMPLATES[kind].format(name=name, title=title))
    return path
