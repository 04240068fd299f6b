"""Kinds of the rich world: those of the basic world, and those of the modules of this folder that have `FORMS`."""

from __future__ import annotations

from functools import cache

from dllm_rl.errors import unknown_name
from harness.sites.forms import forms, forms_in
from harness.sites.schema import FormSpec


@cache
def rich_forms() -> dict[str, FormSpec]:
    """All kinds of the rich world by name: its own first, then those of the basic world."""
    return {**forms_in(__name__), **forms()}


def rich_form(kind: str) -> FormSpec:
    """The form kind of this name, or an error with the nearest known one."""
    if kind not in rich_forms():
        raise unknown_name("form kind", kind, rich_forms())
    return rich_forms()[kind]
