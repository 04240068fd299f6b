"""Settings as YAML, and changes laid over them: those of a preset over its base's, and `dotted.key=value` over both."""

from __future__ import annotations

import re
from typing import Any

import yaml

from dllm_rl.errors import ConfigError, unknown_name


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
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML: {error}. {advice}") from None


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
    for part in reversed(parts):
        value = {part: value}
    return merge(data, value, source=f"override '{override}'")
