"""What a preset may say: the settings of a grid, validated once, here. `design.presets` reads one.

A preset names levels of two factors, policy and objective, and everything that all cells share. What a level may change
is declared under `factors`; anything else that differs between two cells is refused, with the name of the field.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, field_validator

from dllm_rl import registry
from dllm_rl.environment import Environment
from dllm_rl.errors import ConfigError
from dllm_rl.load_options import LoadOptions
from dllm_rl.reward import Reward
from dllm_rl.session import Session
from experiments.design.base import Component, Strict
from experiments.design.turns import NotebookSettings, RepairSettings, RolesSettings

Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], data: Any, *, source: str) -> Model:
    """Build the model from plain data, checked as strictly as the options of components (`dllm_rl.registry`).

    Args:
        source: What the user should open to repair it (a preset's name, a file, an override).

    Raises ConfigError that lists every key at fault.
    """
    try:
        return model.model_validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        lines = [_explain(model, item) for item in error.errors()]
        raise ConfigError(f"{source} is not valid:\n  " + "\n  ".join(lines)) from None


def _explain(model: type[BaseModel], item: Any) -> str:
    path = [str(part) for part in item["loc"]]
    where = ".".join(path) or "(top level)"
    if item["type"] == "extra_forbidden":
        known = _keys_at(model, path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        return f"{where}: no such key.{hint} Known here: {', '.join(sorted(known)) or '(none)'}"
    if item["type"] == "missing":
        return f"{where}: missing"
    given = "" if isinstance(item["input"], dict) else f" (given: {item['input']!r})"
    return f"{where}: {item['msg']}{given}"


def _keys_at(model: type[BaseModel], path: list[str]) -> list[str]:
    kind: Any = model
    for part in path:
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        else:
            fields = getattr(kind, "model_fields", {})
            kind = fields[part].annotation if part in fields else None
        kind = _without_none(kind)
    return list(getattr(kind, "model_fields", {}))


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType):
        return next(kind for kind in get_args(annotation) if kind is not NoneType)
    return annotation


# One component of a path, which leads nowhere else.
PART = r"[^./\\:\x00-\x1f][^/\\:\x00-\x1f]*"
Role = Literal["cell", "null", "negative"]
OnAlarm = Literal["log", "stop", "raise"]
BUILTIN = "builtin:"


class PolicyLevel(LoadOptions):
    """A level of the factor `policy`: warm-started weights, how they are sampled, and training settings of its own.

    How the weights are loaded (device, dtype, attention, lora ...) are keys of it too.

    Attributes:
        checkpoint: `builtin:<family>`, a folder, or a Hugging Face id.
        evaluation_sampler: The sampler of evaluation, also of the warm start's. Default: that of training.
        repair: In episodes, how much of its last plan a turn begins with. Default: every turn is written anew.
        roles: In episodes, the roles that write a turn, call by call. Default: it is written at once.
        facts: See `dllm_rl.policies.base.PolicyFacts`. A checkpoint that does not carry them needs at least `family`.
    """

    checkpoint: str
    sampler: Component
    evaluation_sampler: Component | None = None
    repair: RepairSettings | None = None
    roles: RolesSettings | None = None
    facts: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)

    @property
    def family(self) -> str:
        """Family of the model, as objectives and samplers name it."""
        if "family" in self.facts:
            return str(self.facts["family"])
        stored = self.stated_facts
        if "family" not in stored and self.checkpoint.startswith(BUILTIN):
            return self.checkpoint.removeprefix(BUILTIN)
        if "family" not in stored and self.is_missing:
            raise ConfigError(
                f"checkpoint '{self.checkpoint}' was given, and this folder does not exist. Give one that "
                "`dllm-rl warmstart` or `save_policy` wrote, a hub id (owner/name), or builtin:<family>."
            )
        if "family" not in stored:
            raise ConfigError(f"checkpoint '{self.checkpoint}' does not say its family. Add facts: {{family: masked}}")
        return str(stored["family"])

    @property
    def is_missing(self) -> bool:
        """Whether the checkpoint is a path to a folder that does not exist. A hub id (owner/name) is not a path."""
        is_path = self.checkpoint.count("/") > 1 or self.checkpoint.startswith((".", "/"))
        return is_path and not Path(self.checkpoint).is_dir()

    @property
    def stated_facts(self) -> dict[str, Any]:
        """Facts that the checkpoint's config.json states; {} for one that is not on this disk."""
        from dllm_rl.policies.published import stated_facts

        return stated_facts(self.config)

    @property
    def config(self) -> dict[str, Any]:
        """The checkpoint's config.json; {} for one that is not on this disk."""
        from dllm_rl.policies.base import read_config
        from dllm_rl.policies.checkpoints import CHECKPOINTS

        is_builtin = self.checkpoint.startswith(BUILTIN)
        folder = CHECKPOINTS / self.checkpoint.removeprefix(BUILTIN) if is_builtin else Path(self.checkpoint)
        return read_config(folder) if (folder / "config.json").is_file() else {}


def loaded_levels(levels: Mapping[str, PolicyLevel]) -> dict[str, PolicyLevel]:
    """All that is loaded, by its place: these levels, and as levels the policies that their roles have of their own."""
    found: dict[str, PolicyLevel] = {}
    for name, level in levels.items():
        found[name] = level
        for role, own in ({} if level.roles is None else level.roles.own).items():
            found[f"{name}.roles.own.{role}"] = PolicyLevel(**own.model_dump())
    return found


class ObjectiveLevel(Component):
    """A level of the factor `objective`: a registered objective, its options, and training settings of its own.

    reward: what its runs are paid. Default: the grid's reward. A grid that compares rewards declares it as a factor.
    """

    train: dict[str, Any] = Field(default_factory=dict)
    reward: Component | None = None


class Control(Strict):
    """A run that checks the apparatus instead of a hypothesis. It is reported, and is never among the verdicts."""

    policy: str
    objective: str
    train: dict[str, Any] = Field(default_factory=dict)


class PositiveControl(Strict):
    """One of the grid's own cells, by the names of its levels, that must come out `improved`."""

    policy: str
    objective: str


class Controls(Strict):
    """null: learning rate 0, must change nothing. negative: unshared noise, must trip the estimator-noise alarm.

    positive: a cell of the grid that must improve, or the trainer is broken. It is judged like every other cell.
    """

    positive_control: PositiveControl | None = None
    null_control: Control | None = None
    negative_control: Control | None = None

    def by_role(self) -> list[tuple[Role, Control]]:
        """The controls that are runs of their own."""
        pairs: list[tuple[Role, Control | None]] = [("null", self.null_control), ("negative", self.negative_control)]
        return [(role, control) for role, control in pairs if control is not None]


class Factors(Strict):
    """Which settings may differ between the levels of a factor, as dotted fields of a cell."""

    policy: list[str] = Field(
        default=[
            "checkpoint",
            "family",
            "facts",
            "loading",
            "sampler",
            "evaluation_sampler",
            "repair",
            "roles",
            "train.learning_rate",
        ]
    )
    objective: list[str] = Field(default=["objective"])


class TrainingTasks(Strict):
    """Tasks that are trained on: the first `max_tasks` of the split, or all of them."""

    split: str = "train"
    max_tasks: int | None = Field(default=None, ge=1)


class Evaluation(Strict):
    """The final evaluation. num_samples rollouts a task at `temperature`, and one greedy rollout.

    Attributes:
        margin: Half width, in percentage points, within which two success rates count as equivalent.
        seed: Of the sampling noise, shared by all cells and warm starts (common random numbers).
        isolation: What a rollout shares with others, by a name of the environment; not set where it has no such modes.
        executor: How plans act on a page, likewise.
    """

    split: str = "val"
    max_tasks: int | None = Field(default=None, ge=1)
    num_samples: int = Field(default=4, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    margin: float = Field(default=5.0, gt=0)
    seed: int = Field(default=0, ge=0)
    isolation: str = "context"
    executor: str = "trusted"

    def modes(self, environment: Environment) -> dict[str, str | None]:
        """How the environment runs plans: isolation and executor, None for a mode that it does not have."""
        return {
            "isolation": self.isolation if self.isolation in environment.isolations else None,
            "executor": self.executor if self.executor in environment.executors else None,
        }


class Decoding(Strict):
    """How plans are decoded.

    Attributes:
        grammar: Whether only plans that parse and act on the page's controls can be written: never, only in evaluation,
            or always. In training it needs objectives that replay the draws; others are refused.
    """

    grammar: Literal["never", "evaluation", "always"] = "never"


class Preset(Strict):
    """A whole grid, as written in YAML.

    Attributes:
        on_alarm: What an error or a confirmed collapse does to the run it happens in: log it, stop its training and
            evaluate what there is, or raise, which leaves the run failed. The negative control, made to alarm, always
            logs.
    """

    name: str
    description: str
    policies: dict[str, PolicyLevel] = Field(min_length=1)
    objectives: dict[str, ObjectiveLevel] = Field(min_length=1)
    control_objectives: dict[str, ObjectiveLevel] = Field(default_factory=dict)
    controls: Controls = Controls()
    factors: Factors = Factors()
    seeds: list[int] = Field(min_length=1)
    environment: Component = Component(name="forms")
    reward: Component = Component(name="shaped")
    training_tasks: TrainingTasks = TrainingTasks()
    train: dict[str, Any] = Field(default_factory=dict)
    evaluation: Evaluation = Evaluation()
    decoding: Decoding = Decoding()
    notebook: NotebookSettings = NotebookSettings()
    on_alarm: OnAlarm = "log"
    threads: int | None = Field(default=None, ge=1)

    @field_validator("name", "policies", "objectives", "control_objectives")
    @classmethod
    def _in_paths(cls, named: str | dict[str, Any]) -> Any:
        """Folders of a run are called by these."""
        for name in [named] if isinstance(named, str) else named:
            if re.fullmatch(PART, name) is None:
                raise ValueError(
                    f"'{name}' cannot name a folder of the run; expected a name without '/', '\\' and ':' that does "
                    "not begin with a dot"
                )
        return named

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if min(seeds) < 0:
            raise ValueError(f"seed {min(seeds)} is negative; expected seeds from 0 up")
        if len(set(seeds)) != len(seeds):
            raise ValueError("a seed is listed twice; expected distinct seeds, since a repeated one adds no evidence")
        return seeds


def build_sampler(component: Component, *, temperature: float | None = None) -> Any:
    """Instantiate a sampler. The temperature belongs to training or evaluation, never to the sampler's options."""
    if "temperature" in component.options:
        raise ConfigError(f"sampler '{component.name}': set train.temperature and evaluation.temperature instead")
    given: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
    return registry.build("sampler", component.name, component.options, **given)


def build_objective(component: Component) -> Any:
    """Instantiate an objective."""
    return registry.build("objective", component.name, component.options)


def build_reward(component: Component) -> Reward:
    """Instantiate a reward. Models and files that it reads are opened when it is first asked."""
    return registry.build("reward", component.name, component.options)


def build_environment(component: Component) -> Environment:
    """Instantiate an environment; nothing is started."""
    return registry.build("environment", component.name, component.options)


def build_session(component: Component) -> Session:
    """The environment of a grid; nothing is started before the first call that needs it."""
    return Session(build_environment(component))
