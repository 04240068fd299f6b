"""Names to components: a decorator, discovery of our own packages, entry points of others, and one builder."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.options import construct, keyed, with_published


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
# Facts that hold the name of the component.
_NAMES = ("name", "family")
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
    declare what its kind must (`Kind.declares`) or goes by another name, such as one that it has inherited.
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
        for fact in KINDS[kind].declares:
            if fact in _NAMES and getattr(cls, fact) != name:
                raise ConfigError(
                    f"{kind} '{name}', {cls.__module__}.{cls.__qualname__}, goes by the {fact} "
                    f"'{getattr(cls, fact)}', under which it would be stored. {DECLARED[fact]}"
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
    always; some of these stand there with their defaults (`fixed`).
    """
    cls, owner = get(kind, name), f"{kind} '{name}'"
    options = keyed(cls, with_published(cls, options or {}, owner=owner), owner=owner)
    return {"name": name, "version": cls.version, "options": options}


def families_of(component: Any) -> tuple[str, ...]:
    """Return the policy families that a sampler or an objective (class or instance) is defined for.

    It names families in its class attribute `families`; what is defined for a family is defined for those that derive
    from it.
    """
    named = set(component.families)
    return tuple(name for name, cls in items("policy") if not named.isdisjoint(cls.lineage()))


def unknown_families(component: Any) -> list[str]:
    """Return the names among a component's `families` that no policy family has or derives from."""
    known = {name for _, cls in items("policy") for name in cls.lineage()}
    return sorted(set(component.families) - known)


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
