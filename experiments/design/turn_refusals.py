"""Settings of turns that would have no effect, or none that is defined: refused before anything runs."""

from __future__ import annotations

from typing import Any

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.registry import families_of
from experiments.design.base import Component
from experiments.design.config import (
    ObjectiveLevel,
    PolicyLevel,
    Preset,
    build_environment,
    build_objective,
    build_sampler,
    loaded_levels,
)


def refuse_ignored_turns(preset: Preset) -> None:
    """Raise where a setting of episodes was given and the environment takes whole plans, or the other way round."""
    if registry.get("environment", preset.environment.name).is_episodic:
        if preset.decoding.grammar != "never":
            raise grammar_in_episodes(f"decoding.grammar={preset.decoding.grammar}", preset.environment.name)
        for name, level in loaded_levels(preset.policies).items():
            for key, sampler in (("sampler", level.sampler), ("evaluation_sampler", level.evaluation_sampler)):
                if sampler is not None and has_grammar(sampler):
                    raise grammar_in_episodes(f"policies.{name}.{key}.options.grammar", preset.environment.name)
        return
    given = [f"notebook.{name}" for name in sorted(preset.notebook.model_fields_set)]
    layers = [preset.train, *(level.train for level in (*preset.policies.values(), *preset.objectives.values()))]
    given += [
        f"train.{name}"
        for name in ("horizon", "step_credit", "turn_normaliser")
        if any(name in layer for layer in layers)
    ]
    given += [
        f"policies.{name}.{key}"
        for name, level in preset.policies.items()
        for key in ("repair", "roles")
        if getattr(level, key) is not None
    ]
    if given:
        raise ConfigError(
            f"{', '.join(given)}: environment '{preset.environment.name}' takes whole plans, so there are no earlier "
            "turns. Leave it out, or take the environment episodes."
        )


def has_grammar(sampler: Component) -> bool:
    """Whether a sampler's own options put it under the grammar."""
    return bool(sampler.options.get("grammar", False))


def grammar_in_episodes(given: str, environment: str) -> ConfigError:
    """What is said where a grammar was asked for in episodes."""
    return ConfigError(
        f"{given} was given: the grammar is of whole plans and knows no command of episodes, which environment "
        f"'{environment}' has. Leave it out."
    )


def refuse_turns(
    name: str, environment: Component, policy: PolicyLevel, objective: ObjectiveLevel, train: dict[str, Any]
) -> None:
    """Raise where repair, roles or the horizon of a cell are not defined for what they are given to."""
    from dllm_rl.training import config

    try:
        settings = config.TrainConfig(**train)
        if policy.repair is not None:
            _refuse_repair(policy)
        if policy.roles is not None:
            _refuse_roles(policy, objective, settings)
        if settings.horizon is not None:
            from dllm_rl.training.horizon import refuse_endless_horizon

            refuse_endless_horizon(settings.horizon, build_environment(environment).max_turns)
    except ConfigError as error:
        raise ConfigError(f"cell {name}: {error}") from error


def _refuse_repair(policy: PolicyLevel) -> None:
    from dllm_rl.repair import refuse_repair

    refuse_repair(policy.family, is_aligned={**policy.stated_facts, **policy.facts}.get("line_width") is not None)


def _refuse_roles(policy: PolicyLevel, objective: ObjectiveLevel, settings: Any) -> None:
    from dllm_rl.training.calls import refuse_roles

    assert policy.roles is not None
    refuse_roles(build_objective(objective), settings, is_repaired=policy.repair is not None)
    for place, level in loaded_levels({"policy": policy}).items():
        known = families_of(build_sampler(level.sampler))
        if level.family not in known:
            raise ConfigError(
                f"{place.removeprefix('policy.')} has the sampler '{level.sampler.name}' and a policy of the "
                f"{level.family} family, which it does not draw from (it does from {', '.join(known)})."
            )
