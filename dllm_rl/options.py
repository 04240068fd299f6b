"""Options of a component: what its class takes, and plain data checked against it before anything is made.

Options are checked as JSON is: a list may stand for a tuple and an integer for a float, nothing else is converted.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from dllm_rl.errors import ConfigError, unknown_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a class: its type, and its default (`inspect.Parameter.empty` where it must be given)."""

    hint: Any
    default: Any


def resolved(cls: type, values: Mapping[str, Any], *, owner: str) -> dict[str, Any]:
    """Return every option of a class by name, checked, those that were left out at their defaults."""
    known = _all_options(cls)
    record = _record_of(known)
    known = known if record is None else _all_options(record[1])
    return {key: option.default for key, option in known.items()} | checked(known, values, owner=owner)


def _all_options(cls: type) -> dict[str, Option]:
    """The fields of a dataclass, or the parameters of another's constructor."""
    if dataclasses.is_dataclass(cls):
        hints = get_type_hints(cls, include_extras=True)
        return {item.name: Option(hint=hints[item.name], default=_default(item)) for item in dataclasses.fields(cls)}
    hints = get_type_hints(cls.__init__, include_extras=True)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = [item for item in inspect.signature(cls).parameters.values() if item.kind in named]
    return {item.name: Option(hint=hints.get(item.name, Any), default=item.default) for item in parameters}


def construct(cls: type, values: Mapping[str, Any], *, owner: str, given: Mapping[str, Any]) -> Any:
    """Make an instance from plain data, which is checked, and from what the caller gives, which is trusted.

    Where all that the caller leaves open is one record (`settings`, a dataclass), its fields are the options.

    owner: the component as messages name it, such as "sampler 'klass'".
    Raises ConfigError for an option that does not exist, is missing, has a wrong type or a value out of range.
    """
    known = _all_options(cls)
    for key in given:
        if key not in known:
            raise ConfigError(f"{owner} does not take {key}, which its caller gives. Add it to {cls.__name__}.")
        if key in values:
            raise ConfigError(f"{owner}: {key}={values[key]!r} was given as an option; its caller sets it. Drop it.")
    left = {key: option for key, option in known.items() if key not in given}
    record = _record_of(left)
    options = checked(left if record is None else _all_options(record[1]), values, owner=owner)
    try:
        if record is not None:
            options = {record[0]: record[1](**options)}
        return cls(**options, **given)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{owner}: {error}") from error


def checked(known: Mapping[str, Option], values: Mapping[str, Any], *, owner: str) -> dict[str, Any]:
    """Return the values with their proper types. Raises ConfigError as `construct` does."""
    for key in values:
        if key not in known:
            raise unknown_name(f"option of {owner}", key, known)
    for key, option in known.items():
        if key not in values and option.default is inspect.Parameter.empty:
            raise ConfigError(f"{owner}: option {key} is missing. Give it among the options.")
    return {key: _validated(owner, key, value, known[key]) for key, value in values.items()}


def _validated(owner: str, key: str, value: Any, option: Option) -> Any:
    try:
        return TypeAdapter(option.hint).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        reasons = dict.fromkeys(item["msg"].removeprefix("Value error, ") for item in error.errors())
        expected = " or ".join(reasons).replace("Input should", "it should")
        default = option.default
        way_out = "" if default is inspect.Parameter.empty else f" Leave it out for its default, {default!r}."
        raise ConfigError(f"{owner}: {key}={value!r} was given; {expected}.{way_out}") from None


def _default(item: dataclasses.Field[Any]) -> Any:
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return inspect.Parameter.empty if item.default is dataclasses.MISSING else item.default


def _record_of(options: Mapping[str, Option]) -> tuple[str, type] | None:
    """The one record among the options, by its parameter's name."""
    if len(options) != 1:
        return None
    ((name, option),) = options.items()
    kinds = [kind for kind in (option.hint, *get_args(option.hint)) if dataclasses.is_dataclass(kind)]
    return (name, kinds[0]) if kinds else None  # type: ignore[return-value]
