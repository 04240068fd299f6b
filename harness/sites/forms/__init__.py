"""The form kinds, one file a domain: every module of this folder that has `FORMS` adds its kinds."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from dllm_rl.errors import unknown_name
from harness.sites.schema import FormSpec


@cache
def forms() -> dict[str, FormSpec]:
    """All form kinds by name, sorted."""
    return forms_in(__name__)


def forms_in(package: str) -> dict[str, FormSpec]:
    """The form kinds of a package by name, sorted: those of its modules that have `FORMS`."""
    found: dict[str, FormSpec] = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        for form in getattr(importlib.import_module(f"{package}.{module.name}"), "FORMS", ()):
            if form.kind in found:
                raise ValueError(f"two forms are named '{form.kind}'. Rename the one in {module.name}.py.")
            found[form.kind] = form
    return dict(sorted(found.items()))


def form(kind: str) -> FormSpec:
    """The form kind of this name, or an error with the nearest known one."""
    if kind not in forms():
        raise unknown_name("form kind", kind, forms())
    return forms()[kind]
