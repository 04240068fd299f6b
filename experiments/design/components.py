"""Components of a preset to instances, by the one builder; see `dllm_rl.registry.build`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dllm_rl import registry
from dllm_rl.environment import Environment, Session
from dllm_rl.errors import ConfigError
from dllm_rl.records.tasks import Outcome, RewardRecord
from experiments.design.config import Component


def build_sampler(component: Component, *, temperature: float | None = None) -> Any:
    """Instantiate a sampler. The temperature belongs to training or evaluation, never to the sampler's options."""
    if "temperature" in component.options:
        raise ConfigError(f"sampler '{component.name}': set train.temperature and evaluation.temperature instead")
    given: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
    return registry.build("sampler", component.name, component.options, **given)


def build_objective(component: Component) -> Any:
    """Instantiate an objective."""
    return registry.build("objective", component.name, component.options)


def build_reward(component: Component) -> Callable[[Outcome], RewardRecord]:
    """Instantiate a reward, a function of the outcome."""
    return registry.build("reward", component.name, component.options)


def build_environment(component: Component) -> Environment:
    """Instantiate an environment; nothing is started."""
    return registry.build("environment", component.name, component.options)


def build_session(component: Component) -> Session:
    """The environment of a grid; nothing is started before the first call that needs it."""
    return Session(build_environment(component))
