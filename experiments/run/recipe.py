"""The recipe of warm starts: which demonstrations, and one stage a policy; shipped ones lie in `recipes/`.

A recipe whose stages go on from checkpoints has no tokenizer and no model of its own; it takes theirs. These may be
built-in ones, or any that `dllm_rl.policies.loading` loads: a folder or a hub id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from dllm_rl import registry
from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.load_options import LoadOptions
from dllm_rl.seeding import python_random
from experiments.design.config import Component, Strict, validate
from experiments.design.overrides import apply_override, read_settings
from experiments.run.demonstrations import gold_demonstrations, read_demonstrations
from experiments.run.rehearsals import ErrandDemonstrations, errand_demonstrations
from harness.environments.base import Design
from harness.sites.schema import OBSTACLES, Obstacle, Size

if TYPE_CHECKING:
    from dllm_rl.policies.base import BasePolicy
    from dllm_rl.records.tasks import Task
    from dllm_rl.training.warmstart import Demonstration

DEFAULT_RECIPE = "builtin"
_RECIPES = resources.files("experiments.run") / "recipes"


class Demonstrations(Strict):
    """Tasks whose plans are imitated, as `harness.sites.make_tasks` takes them (split `train`); or a data set.

    Attributes:
        source: JSONL or Parquet file, or hub id, of prompts and plans (`experiments.run.demonstrations`).
        environment: An environment instead, whose gold plans are imitated: a site of one's own, for example.
        count: How many; of a data set or an environment the first ones. Default: all of these.
        source_split: Split of a hub id or of an environment.
        design: Design of the sites.
        obstacles: What the newer design puts in the way.
        finish_share: In the newer design, share of the demonstrations that were recorded on it and hand the form in.
            The others are recordings of the older design on the newer page, and end in a near miss.
        older_share: In the newer design, share of all demonstrations that show the older page itself.
        inversion_share: Share of the tasks of which the state is shown that the gold plan leads to, and the instruction
            is to be written: 1 makes an inverter (`dllm_rl.inverters`), less a policy that does both. Chance alone
            decides which.
        errands: Turns of episodes instead; then `count` is their number, and nothing is said about forms.
    """

    source: str | None = None
    environment: Component | None = None
    count: int | None = Field(default=None, ge=1)
    source_split: str = "train"
    sites_per_kind: int | None = Field(default=None, ge=1)
    dials: tuple[Literal[0, 1, 2], ...] = Field(default=(0, 1), min_length=1)
    size: Size = "small"
    seed: int = 0
    design: Design = "older"
    obstacles: tuple[Obstacle, ...] = Field(default=OBSTACLES, min_length=1)
    finish_share: float = Field(default=1.0, ge=0, le=1)
    older_share: float = Field(default=0.0, ge=0, le=1)
    inversion_share: float = Field(default=0.0, ge=0, le=1)
    errands: ErrandDemonstrations | None = None

    @model_validator(mode="after")
    def _refuse_forms_beside_errands(self) -> Demonstrations:
        given = sorted(self.model_fields_set - {"count", "seed", "errands"})
        if self.errands is not None and given:
            raise ValueError(f"{', '.join(given)}: of forms, and these demonstrations are of errands. Leave it out")
        return self

    @model_validator(mode="after")
    def _refuse_what_has_no_effect(self) -> Demonstrations:
        if self.source is None and self.environment is None and self.count is None:
            raise ValueError("count is missing. Give how many tasks are demonstrated, or source: a data set")
        kind, own = "built-in tasks", set(type(self).model_fields) - {"source_split"}
        if self.source is not None:
            kind, own = "a data set (source)", {"source", "count", "source_split"}
        elif self.environment is not None:
            kind, own = "an environment", {"environment", "count", "source_split"}
        for name in sorted(self.model_fields_set - own):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no effect on demonstrations from {kind}. Leave it out")
        if self.design == "older":
            for name in sorted({"obstacles", "finish_share", "older_share"} & self.model_fields_set):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} has no effect in the design 'older'. Take design: newer, or leave it out")
        for name in sorted({"finish_share", "older_share"} & self.model_fields_set):
            if self.inversion_share == 1 and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no effect where only instructions are written (inversion_share: 1)")
        return self


class Tokenizer(Strict):
    """The shared tokenizer.

    Attributes:
        plan_weight: How often each plan counts beside its prompt.
    """

    vocab_size: int = Field(ge=300)
    plan_weight: int = Field(default=1, ge=1)


class ModelSizes(Strict):
    """What a recipe may say of the model; see `TinyConfig`."""

    hidden_size: int = Field(default=128, ge=1)
    intermediate_size: int = Field(default=344, ge=1)
    num_hidden_layers: int = Field(default=4, ge=1)
    num_attention_heads: int = Field(default=4, ge=1)
    rope_theta: float = Field(default=10_000.0, gt=0)
    num_columns: int = Field(default=0, ge=0)
    num_smeared: int = Field(default=3, ge=0)


class FamilyRecipe(LoadOptions):
    """One stage.

    How a checkpoint that is not built-in is loaded (device, dtype, lora ...) are keys of it too.

    Attributes:
        family: Of the policy that is trained. Default: the stage's name, or what a checkpoint states.
        init: The stage it starts from, a built-in checkpoint (`builtin:masked`), a folder (`./mine`) or a hub id.
        facts: Of a checkpoint that is not built-in, over those of the recipe.
        demonstrations: Settings of the recipe's demonstrations that are others in this stage.
        train: See `dllm_rl.training.warmstart.WarmStartConfig`.
    """

    family: str | None = None
    init: str | None = None
    facts: dict[str, Any] = Field(default_factory=dict)
    demonstrations: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)


class Recipe(Strict):
    """Everything that decides the checkpoints.

    Attributes:
        model: See `TinyConfig`.
        facts: See `PolicyFacts`.
        tokenizer, model: For stages that start from nothing; the others have those of the checkpoint they start from.
    """

    demonstrations: Demonstrations
    tokenizer: Tokenizer | None = None
    model: dict[str, Any] = Field(default_factory=dict)
    facts: dict[str, Any] = Field(default_factory=dict)
    families: dict[str, FamilyRecipe]

    def facts_of(self, stage: str) -> dict[str, Any]:
        """What is said of the policy of one stage; its family, unless a checkpoint has to state it."""
        own = self.families[stage]
        is_stated = is_foreign(own.init) and own.family is None
        family = {} if is_stated else {"family": own.family or stage}
        return {**family, **self.facts, **own.facts}

    def demonstrations_of(self, stage: str) -> Demonstrations:
        """The demonstrations of one stage."""
        data = {**self.demonstrations.model_dump(exclude_unset=True), **self.families[stage].demonstrations}
        return validate(Demonstrations, data, source=f"demonstrations of {stage}")


def recipe_names() -> list[str]:
    """Names of the recipes that ship."""
    return sorted(item.name.removesuffix(".yaml") for item in _RECIPES.iterdir() if item.name.endswith(".yaml"))


def load_recipe(name: str = DEFAULT_RECIPE, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe that ships, or a YAML file, with overrides laid over it."""
    if name in recipe_names():
        file: Path | Traversable = _RECIPES / f"{name}.yaml"
    elif name.endswith((".yaml", ".yml")) and Path(name).is_file():
        file = Path(name)
    else:
        raise unknown_name("recipe (or YAML file)", name, recipe_names())
    data = read_settings(file, source=f"recipe '{name}'")
    for override in overrides:
        data = apply_override(data, override)
    return validate(Recipe, data, source=f"the warm-start recipe {name}")


def refuse_two_recipes(files: Sequence[str], option: str | None) -> None:
    """Raise ConfigError where a command names more than one recipe."""
    named = [*files, *([] if option is None else [option])]
    if len(named) > 1:
        raise ConfigError(
            f"the recipes {', '.join(named)} were given; a run makes the stages of one. Name one of them."
        )


def with_derived(recipe: Recipe, families: list[str]) -> Recipe:
    """The recipe with these families; one that it does not have is trained as the family that it derives from."""
    stages = dict(recipe.families)
    for family in families:
        if family in stages:
            continue
        if family not in registry.names("policy"):
            raise unknown_name("family", family, {*stages, *registry.names("policy")})
        lineage = registry.get("policy", family).lineage()
        origin = next((name for name in lineage if name in stages), None)
        if origin is None:
            raise ConfigError(
                f"the warm-start recipe has no stage for the family '{family}', nor for one that it derives from. Give "
                f"one: families.{family}={{init: autoregressive, train: {{passes: 56000}}}}."
            )
        stages[family] = stages[origin].model_copy(update={"family": family})
    return recipe.model_copy(update={"families": stages})


def refuse_wrong_stages(recipe: Recipe) -> None:
    """Raise where sizes, facts or settings of a stage are wrong, or a stage starts from what there is not."""
    from dllm_rl.training.warmstart import WarmStartConfig

    validate(ModelSizes, recipe.model, source="model of the warm-start recipe")
    _refuse_what_every_stage_replaces(recipe)
    before: list[str] = []
    for stage, own in recipe.families.items():
        facts = recipe.facts_of(stage)
        if "family" in facts:
            registry.get("policy", facts["family"]).facts_class.from_dict(facts)
        validate(WarmStartConfig, own.train, source=f"warm-start settings of {stage}")
        recipe.demonstrations_of(stage)
        _refuse_wrong_start(stage, own, recipe, before)
        before.append(stage)


def _refuse_what_every_stage_replaces(recipe: Recipe) -> None:
    for name in sorted(recipe.demonstrations.model_fields_set):
        if recipe.families and all(name in own.demonstrations for own in recipe.families.values()):
            stage = next(iter(recipe.families))
            raise ConfigError(
                f"demonstrations.{name} was given, and every stage has its own. Set families.{stage}.demonstrations."
                f"{name}, and so for the others."
            )


def _refuse_wrong_start(stage: str, own: FamilyRecipe, recipe: Recipe, before: Sequence[str]) -> None:
    from dllm_rl.policies.checkpoints import resolve

    said = sorted({"facts", *LoadOptions.model_fields} & own.model_fields_set)
    if said and not is_foreign(own.init):
        raise ConfigError(
            f"stage '{stage}' has {', '.join(said)}, which are of checkpoints from a folder or the hub; it starts from "
            f"{own.init or 'nothing'}. Leave {'it' if len(said) == 1 else 'them'} out."
        )
    if is_foreign(own.init):
        if recipe.tokenizer is not None or recipe.model:
            raise ConfigError(
                f"stage '{stage}' goes on from {own.init}, and so with its tokenizer and model. Leave 'tokenizer' and "
                "'model' out of the recipe."
            )
    elif is_builtin(own.init):
        resolve(str(own.init))
        if recipe.tokenizer is not None or recipe.model:
            raise ConfigError(
                f"stage '{stage}' goes on from {own.init}, and so with its tokenizer and model. Leave 'tokenizer' and "
                "'model' out of the recipe, or start from one of its stages."
            )
    elif own.init is not None and own.init in before and is_foreign(recipe.families[own.init].init):
        raise ConfigError(
            f"stage '{stage}' starts from the stage '{own.init}', which goes on from a checkpoint that is not "
            f"built-in. Make that first, and give its folder here: init: <out>/{own.init}."
        )
    elif own.init is not None and own.init not in before:
        raise unknown_name(f"stage before '{stage}', which starts from it,", own.init, before)
    elif own.init is None and recipe.tokenizer is None:
        raise ConfigError(
            f"stage '{stage}' starts from nothing, and the recipe has no tokenizer. Give "
            "`tokenizer: {vocab_size: 2560}`, or a checkpoint such as `init: builtin:masked`."
        )


def is_builtin(init: str | None) -> bool:
    """Whether a stage starts from a checkpoint that ships."""
    return init is not None and init.startswith("builtin:")


def is_foreign(init: str | None) -> bool:
    """Whether a stage starts from a folder or a hub id, which have a slash in their names."""
    return init is not None and "/" in init


def demonstrations(
    settings: Demonstrations, fits_prompt: Callable[[str], bool] = lambda text: True
) -> list[Demonstration]:
    """Prompts and plans of the recipe's training tasks, of its errands, of its data set, or of an environment.

    Args:
        fits_prompt: Whether a prompt of an episode is short enough.
    """
    if settings.source is not None:
        return read_demonstrations(settings.source, split=settings.source_split, count=settings.count)
    if settings.environment is not None:
        return gold_demonstrations(settings.environment, split=settings.source_split, count=settings.count)
    assert settings.count is not None
    if settings.errands is not None:
        return errand_demonstrations(
            settings.errands, count=settings.count, seed=settings.seed, fits_prompt=fits_prompt
        )
    tasks = enumerate(_tasks(settings))
    return [_demonstration(task, index, settings) for index, task in tasks if not _is_inverted(index, settings)]


def inversions(settings: Demonstrations, policy: BasePolicy) -> list[Demonstration]:
    """States that the gold plans of the recipe's other tasks lead to, as prompts, and the tasks' instructions."""
    from dllm_rl.inverters import InversionExample, as_demonstrations
    from harness.sites import expected_page, gold_plan, make_site

    pairs = []
    for index, task in enumerate(_tasks(settings) if settings.inversion_share else ()):
        if not _is_inverted(index, settings):
            continue
        page = expected_page(make_site(task.site))
        pairs.append(InversionExample.of(task.instruction, page, gold_plan(task, page)))
    return as_demonstrations(policy, pairs)


def _is_inverted(index: int, settings: Demonstrations) -> bool:
    return python_random(settings.seed, "inverted", index).random() < settings.inversion_share


def _tasks(settings: Demonstrations) -> Sequence[Task]:
    from harness.sites import make_tasks

    assert settings.count is not None
    return make_tasks(
        "train",
        count=settings.count,
        seed=settings.seed,
        size=settings.size,
        dials=settings.dials,
        sites_per_kind=settings.sites_per_kind,
        obstacles=settings.obstacles if settings.design == "newer" else (),
    )


def _demonstration(task: Task, index: int, settings: Demonstrations) -> Demonstration:
    """One recording. Chance alone decides which design it was made on, so that nothing in a prompt tells."""
    from dllm_rl.records.tasks import render_prompt
    from dllm_rl.training.warmstart import Demonstration
    from harness.sites import expected_page, gold_plan, make_site, older_key, unfinished_plan

    chance = python_random(settings.seed, "recorded on", index)
    if chance.random() < settings.older_share:
        task = replace(task, site=older_key(task.site))
    is_finished = chance.random() < settings.finish_share
    page = expected_page(make_site(task.site))
    return Demonstration(
        prompt=render_prompt(task, page), plan=(gold_plan if is_finished else unfinished_plan)(task, page)
    )
