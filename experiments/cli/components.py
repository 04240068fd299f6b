"""A component that a user names in an option of the command line, as YAML."""

from __future__ import annotations

import yaml

from dllm_rl.errors import ConfigError
from experiments.design.config import Component, validate
from experiments.design.overrides import read_yaml


def component_of(text: str, option: str, example: str) -> Component:
    """Read a component that a user gave as YAML. option, example: what messages name, and what they show."""
    try:
        return validate(Component, read_yaml(text), source=option)
    except yaml.YAMLError as error:
        raise ConfigError(f"{option} {text}: not YAML. Write {example}.") from error
