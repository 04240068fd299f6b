"""The option `--policy KEY=VALUE`: keys of a policy level, for every command that loads a policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from dllm_rl.errors import ConfigError
from dllm_rl.load_options import LoadOptions
from experiments.design.config import validate
from experiments.design.overrides import apply_override
from experiments.design.presets import load_preset


class PolicyKeys(LoadOptions):
    """What a command may say of one policy.

    Attributes:
        facts: See `dllm_rl.policies.base.PolicyFacts`.
    """

    facts: dict[str, Any] = Field(default_factory=dict)


def read_policy_keys(keys: Sequence[str], *, is_trained: bool = False) -> tuple[dict[str, Any], LoadOptions]:
    """Return facts and load options of a policy.

    Raises ConfigError for a key or a value that is not valid, and for one of training where the policy only writes.
    """
    data: dict[str, Any] = {}
    for key in keys:
        data = apply_override(data, key)
    found = validate(PolicyKeys, data, source="--policy")
    if found.of_training and not is_trained:
        raise ConfigError(
            f"--policy {' --policy '.join(found.of_training)} is about training, and nothing is trained here. Leave it "
            "out."
        )
    return found.facts, found.loading


def as_overrides(preset: str, overrides: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Return the overrides, and the keys as overrides of each policy level that the preset then has."""
    read_policy_keys(keys, is_trained=True)
    if not keys:
        return list(overrides)
    levels = load_preset(preset, list(overrides)).policies
    return [*overrides, *(f"policies.{level}.{key}" for level in levels for key in keys)]
