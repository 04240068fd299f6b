"""A sampler's configuration as plain data and back: the frozen dataclass that the sampler is, its name and its options.

`{"sampler": "threshold", "threshold": 0.9, "block_length": 32}` is what travels in JSON, in a model card, in a report.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from dllm_rl import registry
from dllm_rl.errors import ConfigError

NAME_KEY = "sampler"


def sampler_to_dict(sampler: Any) -> dict[str, Any]:
    """Name and every option of a sampler, defaults included."""
    return {NAME_KEY: sampler.name, **dataclasses.asdict(sampler)}


def sampler_from_dict(values: Mapping[str, Any]) -> Any:
    """The sampler of `sampler_to_dict`; what is not given has its default.

    Raises ConfigError for a name or option that does not exist (with the nearest one), or a value of the wrong type.
    """
    options = dict(values)
    if NAME_KEY not in options:
        raise ConfigError(f"a sampler's configuration names it: {{'{NAME_KEY}': 'threshold', ...}}; given: {options}")
    name = options.pop(NAME_KEY)
    return registry.build("sampler", name, options)


def sampler_to_json(sampler: Any) -> str:
    """As `sampler_to_dict`, in JSON."""
    return json.dumps(sampler_to_dict(sampler))


def sampler_from_json(text: str) -> Any:
    """As `sampler_from_dict`, from JSON. Raises ConfigError for other text."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"a sampler's configuration is a JSON object; this is none ({error}): {text[:80]!r}"
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(f"a sampler's configuration is a JSON object; given: {text[:80]!r}")
    return sampler_from_dict(values)


def check_temperature(value: Any) -> None:
    """Raise ConfigError unless this is a finite number of at least 0."""
    if not (is_number(value) and value >= 0):
        raise ConfigError(f"temperature={value}: give 0 for the most likely tokens, or a positive number")


def check_count(name: str, value: Any, what: str) -> None:
    """Raise ConfigError unless this is None or an integer of at least 1.

    Args:
        name: Name of the option.
        value: What was given.
        what: The things that it counts.
    """
    if value is not None and (not isinstance(value, int) or value < 1):
        raise ConfigError(f"{name}={value}: the number of {what} is an integer of at least 1")


def check_number(name: str, value: Any, *, least: float, largest: float = math.inf) -> None:
    """Raise ConfigError unless this is a finite number within these bounds, which belong to them.

    Args:
        name: Name of the option.
        value: What was given.
        least: Lower bound.
        largest: Upper bound; infinity for none.
    """
    if not (is_number(value) and least <= value <= largest):
        bounds = f"of at least {least:g}" if largest == math.inf else f"from {least:g} to {largest:g}"
        raise ConfigError(f"{name}={value}: expected a number {bounds}")


def is_number(value: Any) -> bool:
    """Whether this is a finite number; True and False are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
