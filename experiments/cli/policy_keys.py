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


# What says how a policy is trained, and so nothing where it only writes.
_OF_TRAINING = ("gradient_checkpointing", "shards", "optimiser")


def read_policy_keys(keys: Sequence[str], *, is_trained: bool = False) -> tuple[dict[str, Any], LoadOptions]:
    """Return facts and load options of a policy.

    Raises ConfigError for a key or a value that is not valid, and for one of training where the policy only writes.
    """
    data: dict[str, Any] = {}
    for key in keys:
        data = apply_override(data, key)
    found = validate(PolicyKeys, data, source="--policy")
    for name in _OF_TRAINING if not is_trained else ():
        if getattr(found, name) != PolicyKeys.model_fields[name].default:
            raise ConfigError(f"--policy {name}={getattr(found, name)} is about training, and nothing is trained here.")
    return found.facts, LoadOptions(**{name: getattr(found, name) for name in LoadOptions.model_fields})


def as_overrides(preset: str, overrides: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Return the overrides, and the keys as overrides of each policy level that the preset then has."""
    read_policy_keys(keys, is_trained=True)
    if not keys:
        return list(overrides)
    levels = load_preset(preset, list(overrides)).policies
    return [*overrides, *(f"policies.{level}.{key}" for level in levels for key in keys)]
