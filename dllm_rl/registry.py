"""Names to classes: a decorator, discovery of our own packages, entry points of others, did-you-mean."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from dllm_rl.errors import ConfigError, unknown_name

_PACKAGES = {"objective": "objectives", "sampler": "samplers", "environment": "harness", "policy": "dllm_rl.policies"}
_REGISTRY: dict[str, dict[str, type]] = {kind: {} for kind in _PACKAGES}
_discovered: set[str] = set()
C = TypeVar("C", bound=type)


def register(kind: str, name: str) -> Callable[[C], C]:
    """Register a class under a name; the same name twice is an error, unless it is the same class reloaded."""

    def decorate(cls: C) -> C:
        known = _REGISTRY[kind].get(name)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ConfigError(f"two {kind}s are named '{name}': {known.__module__} and {cls.__module__}. Rename one.")
        _REGISTRY[kind][name] = cls
        return cls

    return decorate


def get(kind: str, name: str) -> Any:
    """Return the class registered under this name, or raise with the nearest known name."""
    discover(kind)
    if name not in _REGISTRY[kind]:
        raise unknown_name(kind, name, _REGISTRY[kind])
    return _REGISTRY[kind][name]


def names(kind: str) -> list[str]:
    """All registered names of a kind, sorted."""
    discover(kind)
    return sorted(_REGISTRY[kind])


def items(kind: str) -> Iterator[tuple[str, Any]]:
    """All registered (name, class) pairs of a kind, sorted by name."""
    for name in names(kind):
        yield name, _REGISTRY[kind][name]


def discover(kind: str) -> None:
    """Import every module of our package for this kind, subpackages included, then what others installed."""
    if kind in _discovered:
        return
    _discovered.add(kind)
    _import_all(_PACKAGES[kind])
    for point in importlib.metadata.entry_points(group=f"dllm_rl.{kind}s"):
        point.load()


def _import_all(package: str) -> None:
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        if module.name.rpartition(".")[2].startswith("_"):
            continue
        importlib.import_module(module.name)
        if module.ispkg:
            _import_all(module.name)
