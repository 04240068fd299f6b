"""A sampler's configuration as plain data and back: the frozen dataclass that the sampler is, its name and its options.

`{"sampler": "threshold", "threshold": 0.9, "block_length": 32}` is what travels in JSON, in a model card, in a report.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dllm_rl import registry
from dllm_rl.errors import ConfigError, unknown_name

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
    cls = registry.get("sampler", name)
    known = {field.name for field in dataclasses.fields(cls)}
    for key in options:
        if key not in known:
            raise unknown_name(f"option of sampler '{name}'", key, known)
    try:
        return TypeAdapter(cls).validate_python(options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"sampler '{name}', option {where}={first['input']!r}: {first['msg']}") from error


def sampler_to_json(sampler: Any) -> str:
    """As `sampler_to_dict`, in JSON."""
    return json.dumps(sampler_to_dict(sampler))


def sampler_from_json(text: str) -> Any:
    """As `sampler_from_dict`, from JSON. Raises ConfigError where the text is no JSON object."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"a sampler's configuration is a JSON object; this is none ({error}): {text[:80]!r}"
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(f"a sampler's configuration is a JSON object; given: {text[:80]!r}")
    return sampler_from_dict(values)
