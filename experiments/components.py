"""Settings to instances: objectives, samplers, rewards and environments by name, their options checked."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

from dllm_rl import registry
from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.tasks import Outcome
from experiments.config import Component
from harness.environment import FormEnvironment, FormSettings
from harness.reward import SCHEMES, RewardRecord
from harness.session import EnvironmentSession
from harness.text import TextEnvironment, TextSession


def build_sampler(component: Component, *, temperature: float | None = None) -> Any:
    """Instantiate a sampler. The temperature belongs to training or evaluation, never to the sampler's options."""
    cls = registry.get("sampler", component.name)
    options = dict(component.options)
    if "temperature" in options:
        raise ConfigError(f"sampler '{component.name}': set train.temperature and evaluation.temperature instead")
    if temperature is not None:
        options["temperature"] = temperature
    known = {field.name for field in dataclasses.fields(cls)}
    for key in options:
        if key not in known:
            raise unknown_name(f"option of sampler '{component.name}'", key, known)
    return cls(**options)


def build_objective(component: Component) -> Any:
    """Instantiate an objective; raises ConfigError for an option that it does not have."""
    import objectives

    return objectives.build_objective(component.name, component.options)


def build_reward(component: Component) -> Callable[[Outcome], RewardRecord]:
    """The reward as a function of the outcome; options are the scheme's keywords."""
    if component.name not in SCHEMES:
        raise unknown_name("reward", component.name, SCHEMES)
    scheme = SCHEMES[component.name]
    known = list(inspect.signature(scheme).parameters)[1:]
    for key in component.options:
        if key not in known:
            raise unknown_name(f"option of reward '{component.name}'", key, known)
    return functools.partial(scheme, **component.options)


def build_session(component: Component) -> EnvironmentSession | TextSession:
    """The environment of a grid; nothing is started before the first rollout."""
    cls = registry.get("environment", component.name)
    if issubclass(cls, TextEnvironment):
        if component.options:
            raise ConfigError(f"environment '{component.name}' has no options; given: {', '.join(component.options)}")
        return TextSession(environment=cls())
    return EnvironmentSession(form_settings(component))


def form_settings(component: Component) -> FormSettings:
    """Settings of the form environment, its options checked."""
    cls = registry.get("environment", component.name)
    if cls is not FormEnvironment:
        raise ConfigError(f"environment '{component.name}' has no session yet; presets run on 'forms' or a text toy")
    known = {field.name for field in dataclasses.fields(FormSettings)}
    for key in component.options:
        if key not in known:
            raise unknown_name(f"option of environment '{component.name}'", key, known)
    lists_as_tuples: dict[str, Any] = {
        key: tuple(item) if isinstance(item, list) else item for key, item in component.options.items()
    }
    return FormSettings(**lists_as_tuples)
