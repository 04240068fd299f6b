"""An objective from the options of a preset, checked once at the border."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from dllm_rl import registry
from dllm_rl.errors import ConfigError, unknown_name


def build_objective(name: str, options: Mapping[str, Any] | None = None, *, family: str | None = None) -> Any:
    """Build a registered objective from the options of a preset.

    Raises ConfigError for an unknown name, an unknown option (with the nearest known one), a value of the wrong type or
    range, and a method that is undefined for the policy family.
    """
    cls = registry.get("objective", name)
    options = dict(options or {})
    known = [item.name for item in dataclasses.fields(cls)]
    for option in options:
        if option not in known:
            raise unknown_name(f"option of objective '{name}'", option, known)
    if family is not None and family not in cls.families:
        raise ConfigError(
            f"objective '{name}' is undefined for the {family} family; it is defined for {', '.join(cls.families)}."
        )
    hints = get_type_hints(cls, include_extras=True)
    return cls(**{option: _validated(name, option, value, hints[option]) for option, value in options.items()})


def _validated(name: str, option: str, value: Any, hint: Any) -> Any:
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ConfigError(f"objective '{name}': {option}={value!r} is not valid: {reason}.") from error
