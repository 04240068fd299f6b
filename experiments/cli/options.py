"""`dllm-rl list KIND NAME` and `dllm-rl list training`: options of a component, or settings of a training run."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from dllm_rl import registry
from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.options import options_of, owner_of

REQUIRED = "(required)"


def listed_options(kind: str, name: str | None, kinds: dict[str, str]) -> list[dict[str, Any]] | None:
    """What the words of the command ask for; None where they ask for names.

    Args:
        kinds: The registry's name of each kind that has one.
    """
    if kind == "training":
        if name is not None:
            raise ConfigError(f"`list training {name}` was given; training is one set of settings. Leave {name} out.")
        from dllm_rl.training.config import TrainConfig

        return settings(TrainConfig)
    if kind not in kinds:
        raise unknown_name("list", kind, [*kinds, "training"])
    if name is None:
        return None
    if kinds[kind] in ("preset", "policy"):
        raise ConfigError(f"`list {kind} {name}` was given; {kind} have no options. `dllm-rl list {kind}` names them.")
    return options(kinds[kind], name)


def options(kind: str, name: str) -> list[dict[str, Any]]:
    """One record an option: name, type, default, and what its class says of it."""
    cls = registry.get(kind, name)
    said = descriptions(owner_of(cls))
    return [
        {"name": key, "type": spelled(option.hint), "default": _default(option.default), "summary": said.get(key, "")}
        for key, option in options_of(cls).items()
    ]


def settings(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The same for the fields of a model."""
    said = descriptions(model)
    return [
        {
            "name": key,
            "type": spelled(field.annotation),
            "default": REQUIRED if field.is_required() else field.get_default(call_default_factory=True),
            "summary": said.get(key, ""),
        }
        for key, field in model.model_fields.items()
    ]


def print_options(found: list[dict[str, Any]]) -> None:
    """Print records as a table; names are never cut or wrapped."""
    if not found:
        Console().print("It has no options.")
        return
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in ("name", "type", "default", "summary"):
        table.add_column(column, no_wrap=column == "name", overflow="fold")
    for entry in found:
        table.add_row(entry["name"], entry["type"], str(entry["default"]), entry["summary"])
    Console(highlight=False, markup=False).print(table)


def spelled(hint: Any) -> str:
    """A type as a user would write its values: choices by name, without the constraints that pydantic keeps."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(spelled(part) for part in parts)
    if hint is type(None):
        return "null"
    if origin is not None and str(origin) == "typing.Literal":
        return ", ".join(str(part) for part in parts)
    if hasattr(hint, "__metadata__"):
        return spelled(parts[0])
    if origin is not None and inspect.isclass(origin):
        inner = ", ".join(dict.fromkeys(spelled(part) for part in parts if part is not Ellipsis))
        return f"{origin.__name__} of {inner}"
    return hint.__name__ if inspect.isclass(hint) else str(hint)


def descriptions(cls: Any) -> dict[str, str]:
    """What the sections `Attributes` and `Args` of a class and its bases say, by name. The nearest class wins."""
    found: dict[str, str] = {}
    for owner in reversed(inspect.getmro(cls)):
        for doc in (owner.__dict__.get("__init__"), owner):
            found |= dict(_items(inspect.cleandoc(getattr(doc, "__doc__", None) or "")))
    return found


def _items(doc: str) -> Iterator[tuple[str, str]]:
    section = re.search(r"^(?:Attributes|Args):\n((?:[ ]{4}.*\n?|\n)+)", doc, re.MULTILINE)
    for names, text in re.findall(r"^ {4}(\w[\w, ]*): (.+(?:\n {5,}.+)*)", section[1] if section else "", re.MULTILINE):
        for name in names.split(", "):
            yield name, " ".join(text.split())


def _default(value: Any) -> Any:
    return REQUIRED if value is inspect.Parameter.empty else value
