"""A preset as a list of cells: factors crossed, controls added, and everything that is not a factor proved equal."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Any

from dllm_rl import registry
from dllm_rl.errors import ConfigError, MissingFileError, unknown_name
from dllm_rl.load_options import LoadOptions
from dllm_rl.registry import families_of
from experiments.design.base import Component, Strict
from experiments.design.config import (
    Control,
    Evaluation,
    Factors,
    ObjectiveLevel,
    OnAlarm,
    PolicyLevel,
    PositiveControl,
    Preset,
    Role,
    TrainingTasks,
    build_objective,
    build_reward,
    build_sampler,
    loaded_levels,
    validate,
)
from experiments.design.engine_refusals import refuse_engines
from experiments.design.toys import TOY, refuse_loading, toy_family
from experiments.design.turn_refusals import refuse_ignored_turns, refuse_turns
from experiments.design.turns import NotebookSettings, RepairSettings, RolesSettings

_LABELS = {"id", "role", "is_positive_control", "policy", "objective_level"}


class Cell(Strict):
    """One resolved cell: all that its result depends on, but for the seed.

    Attributes:
        policy: Name of its level.
        objective_level: Name of the objective's level.
    """

    id: str
    role: Role
    is_positive_control: bool
    policy: str
    objective_level: str
    checkpoint: str
    family: str
    facts: dict[str, Any]
    loading: LoadOptions = LoadOptions()
    sampler: Component
    evaluation_sampler: Component | None
    repair: RepairSettings | None = None
    roles: RolesSettings | None = None
    objective: Component
    train: dict[str, Any]
    environment: Component
    reward: Component
    training_tasks: TrainingTasks
    evaluation: Evaluation
    notebook: NotebookSettings = NotebookSettings()
    on_alarm: OnAlarm
    threads: int | None


def build_cells(preset: Preset) -> list[Cell]:
    """All cells and controls of a preset, in the order of its levels.

    Raises ConfigError where the comparison is not controlled, and for a component that cannot be built.
    """
    refuse_ignored_modes(preset)
    refuse_ignored_turns(preset)
    _refuse_rewards(preset)
    _refuse_foreign_positive_control(preset)
    cells = [_cell(preset, "cell", policy, objective) for policy in preset.policies for objective in preset.objectives]
    refuse_uncontrolled(cells, preset.factors)
    refuse_unequal_rollouts(cells, preset.factors)
    controls = [_control(preset, role, control) for role, control in preset.controls.by_role()]
    refuse_same_names([*cells, *controls])
    return cells + controls


def _refuse_rewards(preset: Preset) -> None:
    """Raise for a reward that cannot be built, and for a grid's reward that every level replaces by its own."""
    own = [level.reward for level in preset.objectives.values()]
    if all(own) and preset.reward not in own:
        raise ConfigError(
            f"reward '{preset.reward.name}' pays nothing: every level of objectives has a reward of its own. Set "
            "reward to one of theirs."
        )
    has_return = registry.get("environment", preset.environment.name).has_return
    for reward in (preset.reward, *own):
        if reward is None:
            continue
        # What it reads may be made later, as a policy's checkpoint may: a run refuses to begin without it.
        with suppress(MissingFileError):
            if build_reward(reward).needs_return and not has_return:
                raise ConfigError(
                    f"reward '{reward.name}' passes on what the environment itself pays, and environment "
                    f"'{preset.environment.name}' pays nothing by itself. Take reward outcome or shaped."
                )


def refuse_ignored_modes(preset: Preset) -> None:
    """Raise where the evaluation asks for a way to run plans that the environment does not have."""
    environment = registry.get("environment", preset.environment.name)
    for key, known in (("isolation", environment.isolations), ("executor", environment.executors)):
        value = getattr(preset.evaluation, key)
        if value in known or value == Evaluation.model_fields[key].default:
            continue
        if known:
            raise unknown_name(f"evaluation.{key} of environment '{preset.environment.name}'", value, known)
        raise ConfigError(
            f"evaluation.{key}={value} was given; environment '{preset.environment.name}' has no such modes. "
            "Leave it out."
        )


def _refuse_foreign_positive_control(preset: Preset) -> None:
    """Raise where the positive control is not one of the grid's cells."""
    named = preset.controls.positive_control
    if named is None:
        return
    _refuse_absent_levels("positive", named, preset.policies, preset.objectives)


def _refuse_absent_levels(
    role: str, control: Control | PositiveControl, policies: Collection[str], objectives: Collection[str]
) -> None:
    """Raise where the policy or the objective of a control is not part of the grid."""
    for kind, name, known in (("policy", control.policy, policies), ("objective", control.objective, objectives)):
        if name not in known:
            raise ConfigError(
                f"the {role} control has the {kind} '{name}', and the grid has {', '.join(known) or 'none'}. Name one "
                f"of these in controls.{role}_control, or leave the control out: controls.{role}_control=null "
                "(controls=[] for all of them)."
            )


def refuse_same_names(cells: list[Cell]) -> None:
    """Raise where two cells would bear one name, such as a-b with c and a with b-c: their results would mix."""
    seen: dict[str, Cell] = {}
    for cell in cells:
        other = seen.setdefault(cell.id, cell)
        if other is not cell:
            raise ConfigError(
                f"two cells are called '{cell.id}': policy '{other.policy}' with objective '{other.objective_level}', "
                f"and '{cell.policy}' with '{cell.objective_level}'. Give one of these levels another name."
            )


def _control(preset: Preset, role: Role, control: Control) -> Cell:
    _refuse_absent_levels(role, control, preset.policies, {**preset.objectives, **preset.control_objectives})
    cell = _cell(preset, role, control.policy, control.objective, control.train)
    if role == "null" and cell.train["learning_rate"] != 0:
        raise ConfigError(
            f"the null control must learn nothing, and its learning rate is {cell.train['learning_rate']:g}. "
            "Set controls.null_control.train.learning_rate=0, or leave it out: controls.null_control=null."
        )
    if role == "negative" and "on_policy" not in build_objective(cell.objective).exceptions:
        raise ConfigError(
            f"the negative control must have a ratio other than 1 before any update, and objective "
            f"'{cell.objective.name}' does not declare that. Take espo_unshared, or leave the control out: "
            "controls.negative_control=null."
        )
    return cell


def _cell(preset: Preset, role: Role, policy: str, objective: str, train: dict[str, Any] | None = None) -> Cell:
    policy_level = preset.policies[policy]
    objective_level = {**preset.objectives, **preset.control_objectives}[objective]
    name = f"{policy}-{objective}" if role == "cell" else f"{role}-{policy}-{objective}"
    refuse_undefined(name, policy_level, objective_level)
    refuse_engines(name, policy_level)
    sampler, evaluation_sampler = decoders(policy_level, preset.decoding.grammar)
    settings = _train_settings(name, preset.train, policy_level.train, objective_level.train, train or {})
    refuse_combination(name, policy_level.family, sampler, objective_level, settings)
    refuse_turns(name, preset.environment, policy_level, objective_level, settings)
    return Cell(
        id=name,
        role=role,
        is_positive_control=role == "cell" and _names(preset.controls.positive_control, policy, objective),
        policy=policy,
        objective_level=objective,
        checkpoint=policy_level.checkpoint,
        family=policy_level.family,
        facts=policy_level.facts,
        loading=policy_level.loading,
        sampler=sampler,
        evaluation_sampler=evaluation_sampler,
        repair=policy_level.repair,
        roles=policy_level.roles,
        objective=Component(name=objective_level.name, options=objective_level.options),
        train=settings,
        environment=preset.environment,
        reward=objective_level.reward or preset.reward,
        training_tasks=preset.training_tasks,
        evaluation=preset.evaluation,
        notebook=preset.notebook,
        on_alarm="log" if role == "negative" else preset.on_alarm,
        threads=preset.threads,
    )


def _names(control: PositiveControl | None, policy: str, objective: str) -> bool:
    return control is not None and (control.policy, control.objective) == (policy, objective)


def _train_settings(name: str, *layers: dict[str, Any]) -> dict[str, Any]:
    """Merge the layers, later ones winning, and spell out every default, so that a digest covers them."""
    from dllm_rl.training.config import TrainConfig

    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer
    if "seed" in merged:
        raise ConfigError(f"cell {name}: train.seed is set by the grid. Write seeds=[{merged['seed']}] instead.")
    resolved = validate(TrainConfig, merged, source=f"train settings of cell {name}").model_dump(mode="json")
    del resolved["seed"]
    return resolved


def refuse_undefined(name: str, policy: PolicyLevel, objective: ObjectiveLevel) -> None:
    """Raise where objective, sampler or facts are unknown, have wrong options, or are not of the policy's family."""
    from samplers import CACHES, UnmaskingRule

    for level in loaded_levels({name: policy}).values():
        refuse_facts(level)
    parts = [("objective", build_objective(objective)), ("sampler", build_sampler(policy.sampler))]
    if policy.evaluation_sampler is not None:
        parts.append(("sampler", build_sampler(policy.evaluation_sampler)))
    for kind, component in parts:
        if isinstance(component, UnmaskingRule) and policy.family not in families_of(CACHES[component.cache]):
            raise ConfigError(
                f"cell {name}: cache='{component.cache}' is for the masked family, and '{policy.family}' keeps what "
                "never changes without it. Leave the option out."
            )
        if policy.family not in families_of(component):
            raise ConfigError(
                f"cell {name}: {kind} '{component.name}' is not defined for the family '{policy.family}' "
                f"(it is for {', '.join(families_of(component))}). Take the cell out of the preset."
            )


def refuse_facts(policy: PolicyLevel) -> None:
    """Raise where facts of a policy are unknown, wrong, or of other families, and for what a toy's policy ignores."""
    from dllm_rl.policies.checkpoints import checked_facts

    if policy.checkpoint.startswith(TOY):
        toy_family(policy.checkpoint, policy.facts)
        refuse_loading(policy.checkpoint, policy.loading)
    else:
        checked_facts(policy.checkpoint, policy.stated_facts, {"family": policy.family, **policy.facts})


def decoders(policy: PolicyLevel, grammar: str) -> tuple[Component, Component | None]:
    """The samplers of training and of evaluation (None: the same), with the grammar where the preset wants it."""
    if grammar == "never":
        return policy.sampler, policy.evaluation_sampler
    evaluation = _under_grammar(policy.evaluation_sampler or policy.sampler)
    return (policy.sampler if grammar == "evaluation" else _under_grammar(policy.sampler)), evaluation


def _under_grammar(sampler: Component) -> Component:
    bound = Component(name=sampler.name, options={**sampler.options, "grammar": True})
    build_sampler(bound)
    return bound


def refuse_combination(
    name: str, family: str, sampler: Component, objective: ObjectiveLevel, train: dict[str, Any]
) -> None:
    """Raise where an objective would score draws by other probabilities than they had, or settings are not for it."""
    from dllm_rl.training import config
    from dllm_rl.training.correction import refuse_correction

    method = build_objective(objective)
    try:
        config.refuse_unreplayable(registry.get("policy", family), build_sampler(sampler), method)
        settings = config.TrainConfig(**train)
        config.refuse_settings(settings, method)
        refuse_correction(settings.importance_sampling_cap, registry.get("policy", family), build_sampler(sampler))
    except ConfigError as error:
        raise ConfigError(f"cell {name}: {error}") from error


def refuse_uncontrolled(cells: list[Cell], factors: Factors) -> None:
    """Raise where two cells differ in a field that no factor declares, or differ inside one level of the factor."""
    if len(cells) < 2:
        return
    flat = [flatten(cell.model_dump(mode="json", exclude=_LABELS)) for cell in cells]
    for field in sorted(set().union(*flat)):
        labels = [_level(cell, field, factors) for cell in cells]
        first: dict[tuple[str, ...], int] = {}
        for index, label in enumerate(labels):
            other = first.setdefault(label, index)
            if flat[index].get(field) != flat[other].get(field):
                raise ConfigError(
                    f"cells {cells[other].id} and {cells[index].id} differ in '{field}' "
                    f"({flat[other].get(field)!r} and {flat[index].get(field)!r}), which no factor declares. "
                    f"Set it for all cells, or declare it under factors."
                )


def refuse_unequal_rollouts(cells: list[Cell], factors: Factors) -> None:
    """Raise where cells that are compared may draw other numbers of rollouts, unless a factor declares it."""
    field = "train.resample_rounds"
    is_declared = _is_covered(field, factors.policy) or _is_covered(field, factors.objective)
    resampling = [cell.id for cell in cells if cell.train["resample_rounds"]]
    if len(cells) > 1 and resampling and not is_declared:
        raise ConfigError(
            f"cell {resampling[0]} draws groups without variance anew (train.resample_rounds), so its number of "
            "rollouts depends on how it learns, and the cells would not be compared at equal cost. Set it to 0, or "
            "declare it: factors: {objective: [objective, train.resample_rounds]}."
        )


def _level(cell: Cell, field: str, factors: Factors) -> tuple[str, ...]:
    level = []
    if _is_covered(field, factors.policy):
        level.append(cell.policy)
    if _is_covered(field, factors.objective):
        level.append(cell.objective_level)
    return tuple(level)


def _is_covered(field: str, declared: list[str]) -> bool:
    return any(field == name or field.startswith(name + ".") for name in declared)


def flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted fields."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
