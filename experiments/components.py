"""Settings to instances: objectives, samplers and rewards by registered name, with options checked against their fields."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from dllm_rl import registry
from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.tasks import Outcome
from experiments.config import Component


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


def build_reward(component: Component) -> Callable[[Outcome], Any]:
    """The reward as a function of the outcome; options are its weights."""
    from harness.reward import SCHEMES

    if component.name not in SCHEMES:
        raise unknown_name("reward", component.name, SCHEMES)
    return functools.partial(SCHEMES[component.name], **component.options)
