"""What `dllm-rl list` shows: every registered plug-in with the facts it states about itself, and the presets."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from dllm_rl import registry
from experiments.design.config import load_preset, preset_names

_FACTS = ("paper", "level", "families")


def entries(kind: str) -> list[dict[str, Any]]:
    """One record a name: name, first line of the documentation, and the stated facts."""
    if kind == "preset":
        return [{"name": name, "summary": load_preset(name).description} for name in preset_names()]
    return [_entry(name, cls) for name, cls in registry.items(kind)]


def broken(kind: str) -> dict[str, str]:
    """What installed packages announce and cannot deliver, with the reason."""
    return {} if kind == "preset" else registry.broken(kind)


def _entry(name: str, cls: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "summary": _summary(cls), "module": cls.__module__}
    for fact in _FACTS:
        value = getattr(cls, fact, None)
        if fact == "families" and value is not None:
            entry[fact] = list(registry.families_of(cls))
        elif isinstance(value, str) and value:
            entry[fact] = value
    return entry


def _summary(cls: Any) -> str:
    return (cls.__doc__ or "").strip().split("\n")[0].split(". ")[0].split(": ")[0].rstrip(".")


def print_entries(found: list[dict[str, Any]]) -> None:
    """Print records as a table whose columns are the facts that any of them states."""
    columns = ["name", *(fact for fact in _FACTS if any(fact in entry for entry in found)), "summary"]
    table = Table(*columns)
    for entry in found:
        table.add_row(*(_cell(entry.get(column, "")) for column in columns))
    Console().print(table)


def _cell(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
