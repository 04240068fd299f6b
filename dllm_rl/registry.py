"""Names to components: a decorator, discovery of our own packages, entry points of others, and one builder.

Options are checked as JSON is before anything is made: a list may stand for a tuple and an integer for a float, nothing
else is converted.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import inspect
import json
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from dllm_rl.errors import ConfigError, unknown_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a class.

    Attributes:
        hint: Its type.
        default: `inspect.Parameter.empty` where it must be given.
        is_added: At its default it is left out of what results are keyed by.
        is_keyed: Whether results are keyed by it at all.
    """

    hint: Any
    default: Any
    is_added: bool = False
    is_keyed: bool = True


# The option of every objective that names its published settings (`published`).
PARITY = "parity"
_ADDED = "added"
_UNKEYED = "unkeyed"


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


def resolved(cls: type, values: Mapping[str, Any], *, owner: str) -> dict[str, Any]:
    """Return every option of a class by name, checked, those that were left out at their defaults."""
    known = _all_options(cls)
    record = _record_of(known)
    known = known if record is None else _all_options(record[1])
    return {key: option.default for key, option in known.items()} | checked(known, values, owner=owner)


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
    try:
        return _adapter(option.hint).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        reasons = dict.fromkeys(item["msg"].removeprefix("Value error, ") for item in error.errors())
        expected = " or ".join(reasons).replace("Input should", "it should")
        default = option.default
        way_out = "" if default is inspect.Parameter.empty else f" Leave it out for its default, {default!r}."
        raise ConfigError(f"{owner}: {key}={value!r} was given; {expected}.{way_out}") from None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Where components of a kind are found, and what their classes must declare.

    Attributes:
        package: Ours, in which every module is looked at.
        group: Entry points of others.
        declares: Class attributes without which a component cannot be used.
        without: Modules and subpackages of ours that hold no component and are slow to import, because of transformers.
    """

    package: str
    group: str
    declares: tuple[str, ...] = ("version",)
    without: tuple[str, ...] = ()


# Why a class attribute is needed, as the error says it where one is missing.
DECLARED = {
    "version": "Write `version: ClassVar[int] = 1`, and raise it when its numbers change: results are keyed by it.",
    "needs_truth": "Derive it from `dllm_rl.reward.OutcomeReward` if it is a function of the outcome. Otherwise derive "
    "it from `Reward` and write `needs_truth: ClassVar[bool]`: whether it reads what the server received.",
    "name": "Write `name: ClassVar[str]`, with the name under which it is registered.",
    "families": "Write `families: ClassVar[tuple[str, ...]]`, the policy families that it is defined for.",
    "family": "Write `family: ClassVar[str]`, with the name under which it is registered.",
}
_NAMED = ("name", "families", "version")
KINDS = {
    "objective": Kind(package="objectives", group="dllm_rl.objectives", declares=_NAMED),
    "sampler": Kind(package="samplers", group="dllm_rl.samplers", declares=_NAMED, without=("samplers.hf",)),
    "environment": Kind(package="harness.environments", group="dllm_rl.environments"),
    "reward": Kind(package="harness.rewards", group="dllm_rl.rewards", declares=("version", "needs_truth")),
    "inverter": Kind(package="dllm_rl.inverters", group="dllm_rl.inverters"),
    "policy": Kind(
        package="dllm_rl.policies",
        group="dllm_rl.policies",
        declares=("family", "version"),
        without=tuple(f"dllm_rl.policies.{name}" for name in ("adapters", "foreign", "loading", "tiny")),
    ),
}
_REGISTRY: dict[str, dict[str, type]] = {kind: {} for kind in KINDS}
_BROKEN: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
_discovered: set[str] = set()
C = TypeVar("C", bound=type)


def register(kind: str, name: str) -> Callable[[C], C]:
    """Register a class under a name.

    Raises ConfigError for a name that another class has (the same class may be reloaded), and for a class that does not
    declare what its kind must (`Kind.declares`).
    """

    def decorate(cls: C) -> C:
        known = _REGISTRY[kind].get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ConfigError(f"two {kind}s are named '{name}': {known.__module__} and {cls.__module__}. Rename one.")
        missing = [fact for fact in KINDS[kind].declares if not hasattr(cls, fact)]
        if missing:
            raise ConfigError(
                f"{kind} '{name}', {cls.__module__}.{cls.__qualname__}, does not declare {missing[0]}. "
                f"{DECLARED[missing[0]]}"
            )
        _REGISTRY[kind][name] = cls
        return cls

    return decorate


def get(kind: str, name: str) -> Any:
    """Return the class registered under this name. Raises ConfigError with the nearest known name where none is."""
    discover(kind)
    if name in _REGISTRY[kind]:
        return _REGISTRY[kind][name]
    if name in _BROKEN[kind]:
        raise ConfigError(f"{kind} '{name}' cannot be used: {_BROKEN[kind][name]}. Mend or uninstall that package.")
    lost = [f"'{other}', since {reason}" for other, reason in _BROKEN[kind].items()]
    raise ConfigError(". Not loaded: ".join([str(unknown_name(kind, name, _REGISTRY[kind])), *lost]))


def build(
    kind: str, name: str, options: Mapping[str, Any] | None = None, *, family: str | None = None, **given: Any
) -> Any:
    """Make a component from its name and its options, as they stand in a preset or in JSON.

    Args:
        options: Plain data, checked against the types that the class declares for its fields or parameters.
        family: Of the policy that the component is for, where it is known.
        given: What the caller decides, such as a sampler's temperature; no option may say otherwise.

    Raises ConfigError for an unknown name or option (with the nearest known one), a value of the wrong type or range,
    and a component that is undefined for the family.
    """
    cls = get(kind, name)
    if family is not None and family not in families_of(cls):
        raise ConfigError(
            f"{kind} '{name}' is undefined for the {family} family; it is defined for {', '.join(families_of(cls))}."
        )
    owner = f"{kind} '{name}'"
    return construct(cls, with_published(cls, options or {}, owner=owner), owner=owner, given=given)


def identity(kind: str, name: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what decides the numbers of a component: its name, its declared version, and its options.

    Options that a class got later (`added`) are left out at their defaults, and those that decide nothing (`unkeyed`)
    always.
    """
    cls, owner = get(kind, name), f"{kind} '{name}'"
    known = _all_options(cls)
    given = resolved(cls, with_published(cls, options or {}, owner=owner), owner=owner)
    return {
        "name": name,
        "version": cls.version,
        "options": {key: value for key, value in given.items() if key not in known or _is_keyed(known[key], value)},
    }


def _is_keyed(option: Option, value: Any) -> bool:
    return option.is_keyed and not (option.is_added and value == option.default)


def families_of(component: Any) -> tuple[str, ...]:
    """Return the policy families that a sampler or an objective (class or instance) is defined for.

    It names families in its class attribute `families`; what is defined for a family is defined for those that derive
    from it.
    """
    named = set(component.families)
    return tuple(name for name, cls in items("policy") if not named.isdisjoint(cls.lineage()))


def names(kind: str) -> list[str]:
    """Return all registered names of a kind, sorted."""
    discover(kind)
    return sorted(_REGISTRY[kind])


def items(kind: str) -> Iterator[tuple[str, Any]]:
    """Iterate over all registered (name, class) pairs of a kind, sorted by name."""
    for name in names(kind):
        yield name, _REGISTRY[kind][name]


def broken(kind: str) -> dict[str, str]:
    """Return the entry points of a kind that could not be loaded, by name, with the reason."""
    discover(kind)
    return dict(_BROKEN[kind])


def discover(kind: str) -> None:
    """Import every module of our package for this kind, subpackages included, then what others installed."""
    if kind in _discovered:
        return
    _discovered.add(kind)
    _import_all(KINDS[kind].package, KINDS[kind].without)
    for point in importlib.metadata.entry_points(group=KINDS[kind].group):
        try:
            point.load()
        except Exception as error:  # Another's package must not take the program down.
            _BROKEN[kind][point.name] = f"its entry point {point.value} failed with {type(error).__name__}: {error}"


def _import_all(package: str, without: tuple[str, ...]) -> None:
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        if module.name.rpartition(".")[2].startswith("_") or module.name in without:
            continue
        importlib.import_module(module.name)
        if module.ispkg:
            _import_all(module.name, without)
