"""A component that a user names on the command line, as YAML or in a file."""

from __future__ import annotations

from experiments.design.config import Component, Strict, validate
from experiments.design.overrides import read_yaml


class JudgeFile(Strict):
    """A file that names a judge as a preset names its reward."""

    reward: Component


def component_of(text: str, option: str, example: str) -> Component:
    """Read a component that a user gave as YAML.

    Args:
        option: What messages name.
        example: What they show.
    """
    return validate(Component, read_yaml(text, source=f"{option} {text}", advice=f"Write {example}."), source=option)
