"""Options of components: their types, defaults and part in what results are keyed by, and how plain data is checked.

Options are checked as JSON is before anything is made: a list may stand for a tuple and an integer for a float, nothing
else is converted.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from dllm_rl.errors import ConfigError, MissingFileError, unknown_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a class.

    Attributes:
        hint: Its type.
        default: `inspect.Parameter.empty` where it must be given.
        is_added: At its default it is left out of what results are keyed by.
        is_keyed: Whether results are keyed by it at all.
        is_fixed: Whether results are keyed by its default, whatever was given.
    """

    hint: Any
    default: Any
    is_added: bool = False
    is_keyed: bool = True
    is_fixed: bool = False

    def keys(self, value: Any) -> bool:
        """Whether results are keyed by this value of it."""
        return self.is_keyed and not (self.is_added and value == self.default)


# The option of every objective that names its published settings (`published`).
PARITY = "parity"
_ADDED = "added"
_UNKEYED = "unkeyed"
_FIXED = "fixed"


def added(default: Any) -> Any:
    """Return the field of an option that a class got later, whose default is what the class did before.

    Results of the class without it stay valid: at its default the option is left out of what they are keyed by.
    """
    return dataclasses.field(default=default, metadata={_ADDED: True})


def unkeyed(default: Any = dataclasses.MISSING, *, factory: Any = dataclasses.MISSING) -> Any:
    """Return the field of an option that decides no number, such as a time limit or a price.

    Results are not keyed by it. What it names and does decide numbers, such as a file's content, belongs to the
    component's ingredients.
    """
    return dataclasses.field(default=default, default_factory=factory, metadata={_UNKEYED: True})


def fixed(default: Any) -> Any:
    """Return the field of an option that decides no number, and whose default stands in keys of older results.

    Results are keyed by the default, whatever was given. Of a new option take `unkeyed`.
    """
    return dataclasses.field(default=default, metadata={_FIXED: True})


def resolved(cls: type, values: Mapping[str, Any], *, owner: str) -> dict[str, Any]:
    """Return every option of a class by name, checked, those that were left out at their defaults."""
    known = options_of(cls)
    return {key: option.default for key, option in known.items()} | checked(known, values, owner=owner)


def options_of(cls: type) -> dict[str, Option]:
    """The options of a class by name."""
    return _all_options(owner_of(cls))


def owner_of(cls: type) -> type:
    """What has the options of a class: itself, or the one record that it takes."""
    record = _record_of(_all_options(cls))
    return cls if record is None else record[1]


def keyed(cls: type, values: Mapping[str, Any], *, owner: str) -> dict[str, Any]:
    """Return the options that results are keyed by: not those that decide nothing, nor added ones at their defaults."""
    known = options_of(cls)
    given = resolved(cls, values, owner=owner)
    given |= {key: option.default for key, option in known.items() if option.is_fixed}
    return {key: value for key, value in given.items() if known[key].keys(value)}


def stated(component: Any) -> dict[str, Any]:
    """Return the options of an instance that decide numbers, as plain data.

    Anything but a dataclass has none. Of what is not plain, such as a function, the type's name.
    """
    if not dataclasses.is_dataclass(component):
        return {}
    known = [item for item in dataclasses.fields(component) if not {_UNKEYED, _FIXED} & item.metadata.keys()]
    values = {item.name: getattr(component, item.name) for item in known}
    return json.loads(json.dumps(values, default=lambda value: type(value).__qualname__))


def _all_options(cls: type) -> dict[str, Option]:
    """The fields of a dataclass, or the parameters of another's constructor."""
    if dataclasses.is_dataclass(cls):
        hints = _hints(cls)
        return {
            item.name: Option(
                hint=hints[item.name],
                default=_default(item),
                is_added=_ADDED in item.metadata,
                is_keyed=_UNKEYED not in item.metadata,
                is_fixed=_FIXED in item.metadata,
            )
            for item in dataclasses.fields(cls)
        }
    hints = _hints(cls.__init__)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = [item for item in inspect.signature(cls).parameters.values() if item.kind in named]
    return {item.name: Option(hint=hints.get(item.name, Any), default=item.default) for item in parameters}


@functools.cache
def _hints(owner: Any) -> dict[str, Any]:
    return get_type_hints(owner, include_extras=True)


def construct(cls: type, values: Mapping[str, Any], *, owner: str, given: Mapping[str, Any]) -> Any:
    """Make an instance from plain data, which is checked, and from what the caller gives, which is trusted.

    Where all that the caller leaves open is one record (`settings`, a dataclass), its fields are the options.

    Args:
        owner: The component as messages name it, such as "sampler 'klass'".

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
    except MissingFileError:
        raise
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{owner}: {error}") from error


def with_published(cls: type, values: Mapping[str, Any], *, owner: str) -> Mapping[str, Any]:
    """Return the options with `parity: true` replaced by the settings of the method's public code.

    A class names them in a class attribute `published` of its own, where its options can express what is published. An
    option that is given, too, comes first. Raises ConfigError where it names none, and where parity is not true.
    """
    if PARITY not in values or not hasattr(cls, "published"):
        return values
    if values[PARITY] is not True:
        raise ConfigError(f"{owner}: parity={values[PARITY]!r} was given; it should be true, or left out.")
    # That of a base class is of another method.
    published: Mapping[str, Any] | None = vars(cls).get("published")
    if published is None:
        raise ConfigError(
            f"{owner}: parity=True was given, but its options cannot express a published behaviour: its docstring and "
            "docs/objectives.md say where it departs. Leave parity out."
        )
    return {**published, **{key: value for key, value in values.items() if key != PARITY}}


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
    if _has_nan(value):
        raise ConfigError(
            f"{owner}: {key}={value!r} was given; it should hold numbers, and NaN is none. Give a number."
        )
    try:
        return _adapter(option.hint).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        reasons = dict.fromkeys(item["msg"].removeprefix("Value error, ") for item in error.errors())
        expected = " or ".join(reasons).replace("Input should", "it should")
        default = option.default
        way_out = "" if default is inspect.Parameter.empty else f" Leave it out for its default, {default!r}."
        raise ConfigError(f"{owner}: {key}={value!r} was given; {expected}.{way_out}") from None


def _has_nan(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_nan, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_nan, value))
    return isinstance(value, float) and math.isnan(value)


def _adapter(hint: Any) -> TypeAdapter[Any]:
    """The check of a type; made once, because a grid has hundreds of options and a check takes a while to make."""
    try:
        return _kept_adapter(hint)
    except TypeError:
        # Annotated with something that is not hashable.
        return TypeAdapter(hint)


_kept_adapter = functools.cache(TypeAdapter)


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
