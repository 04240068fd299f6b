"""Settings as YAML, and changes laid over them: those of a preset over its base's, and `dotted.key=value` over both."""

from __future__ import annotations

import re
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.files import read_text


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers: 1e-3 is one, which YAML 1.1 reads as a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(text: str, *, source: str, advice: str = "Mend it.") -> Any:
    """Return the plain data of a YAML text. Raises ConfigError where it is something else.

    Args:
        source: Where the text stands, as messages name it.
        advice: What they say to do.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        place = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise ConfigError(f"{source}: not YAML{place}: {error.problem}. {advice}") from None
    except (yaml.YAMLError, ValueError) as error:
        # A ValueError is of a date that there is not.
        raise ConfigError(f"{source}: not YAML: {error}. {advice}") from None


def read_settings(file: Path | Traversable, *, source: str) -> dict[str, Any]:
    """Return the mapping of a YAML file.

    Args:
        source: What the file is, for messages.

    Raises ConfigError where it is none.
    """
    text = read_text(file) if isinstance(file, Path) else file.read_text(encoding="utf-8")
    data = read_yaml(text, source=source)
    if not isinstance(data, dict):
        raise ConfigError(f"{source} is a {type(data).__name__}; expected a mapping of settings")
    return data


def merge(base: dict[str, Any], changes: dict[str, Any], *, source: str) -> dict[str, Any]:
    """Lay changes over settings, mapping by mapping.

    A list of names given for a mapping keeps those entries of it. A component that gets another name loses the options
    of the old one, and may stand there as its name alone.
    """
    merged = dict(base)
    for key, value in changes.items():
        current = merged.get(key)
        if isinstance(current, str) and isinstance(value, dict) and value.keys() <= {"name", "options", "train"}:
            current = {"name": current}
        if not isinstance(current, dict):
            merged[key] = value
            continue
        if isinstance(value, dict):
            is_other = "name" in value and "name" in current and value["name"] != current["name"]
            kept = {name: item for name, item in current.items() if not (is_other and name == "options")}
            merged[key] = merge(kept, value, source=source)
        elif isinstance(value, list):
            merged[key] = {name: current[name] for name in _known(value, current, f"entry of {key} in {source}")}
        else:
            merged[key] = value
    return merged


def _known(names: list[Any], current: dict[str, Any], kind: str) -> list[str]:
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"{name!r} was given for an {kind}; expected its name. Known: {', '.join(current)}.")
        if name not in current:
            raise unknown_name(kind, str(name), current)
    return names


def apply_override(data: dict[str, Any], override: str) -> dict[str, Any]:
    """The settings with one `dotted.key=value` laid over them."""
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(f"'{override}' is not an override; expected key=value, such as train.steps=4 or seeds=[0,1]")
    value = read_yaml(text, source=f"the value in '{override}'", advice="Quote it.")
    for part in reversed(_keys(data, parts)):
        value = {part: value}
    return merge(data, value, source=f"override '{override}'")


def _keys(data: Any, parts: list[str]) -> list[str]:
    """The keys that dotted parts stand for. Where the settings have a key with dots in it, that one is meant."""
    keys: list[str] = []
    while parts:
        known = data if isinstance(data, dict) else {}
        lengths = range(len(parts), 0, -1)
        length = next((size for size in lengths if ".".join(parts[:size]) in known), 1)
        keys.append(".".join(parts[:length]))
        data, parts = known.get(keys[-1]), parts[length:]
    return keys
