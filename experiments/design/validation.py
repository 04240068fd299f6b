"""Pydantic models to one clear message: unknown keys get the nearest known one, wrong values say what was expected."""

from __future__ import annotations

import difflib
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from dllm_rl.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Base of every configuration model: frozen, and no key that nobody reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def validate(model: type[Model], data: Any, *, source: str) -> Model:
    """Build the model from plain data, or raise one `ConfigError` that lists every key at fault.

    source: what the user should open to repair it (a preset's name, a file, an override).
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(model, item) for item in error.errors()]
        raise ConfigError(f"{source} is not valid:\n  " + "\n  ".join(lines)) from None


def _explain(model: type[BaseModel], item: Any) -> str:
    path = [str(part) for part in item["loc"]]
    where = ".".join(path) or "(top level)"
    if item["type"] == "extra_forbidden":
        known = _keys_at(model, path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        return f"{where}: no such key.{hint} Known here: {', '.join(sorted(known)) or '(none)'}"
    if item["type"] == "missing":
        return f"{where}: missing"
    given = "" if isinstance(item["input"], dict) else f" (given: {item['input']!r})"
    return f"{where}: {item['msg']}{given}"


def _keys_at(model: type[BaseModel], path: list[str]) -> list[str]:
    kind: Any = model
    for part in path:
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        else:
            fields = getattr(kind, "model_fields", {})
            kind = fields[part].annotation if part in fields else None
        kind = _without_none(kind)
    return list(getattr(kind, "model_fields", {}))


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType):
        return next(kind for kind in get_args(annotation) if kind is not NoneType)
    return annotation
