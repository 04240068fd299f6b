"""A sampler's configuration as plain data and back: the frozen dataclass that the sampler is, its name and its options.

`{"sampler": "threshold", "threshold": 0.9, "block_length": 32}` is what travels in JSON, in a model card, in a report.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator

from dllm_rl import registry
from dllm_rl.errors import ConfigError

NAME_KEY = "sampler"


CacheKind = Literal["exact", "none", "prefix", "dual"]


def _of_bool(given: Any) -> Any:
    """Configurations in JSON that earlier versions wrote have true and false."""
    return ("exact" if given else "none") if isinstance(given, bool) else given


CacheOption = Annotated[CacheKind, BeforeValidator(_of_bool)]


def sampler_to_dict(sampler: Any) -> dict[str, Any]:
    """Name and every option of a sampler, defaults included."""
    return {NAME_KEY: sampler.name, **dataclasses.asdict(sampler)}


def sampler_from_dict(values: Mapping[str, Any]) -> Any:
    """The sampler of `sampler_to_dict`; what is not given has its default.

    Raises ConfigError for a name or option that does not exist (with the nearest one), or a value of the wrong type.
    """
    options = dict(values)
    if NAME_KEY not in options:
        raise ConfigError(f"a sampler's configuration names it: {{'{NAME_KEY}': 'threshold', ...}}; given: {options}")
    name = options.pop(NAME_KEY)
    return registry.build("sampler", name, options)


def sampler_to_json(sampler: Any) -> str:
    """As `sampler_to_dict`, in JSON."""
    return json.dumps(sampler_to_dict(sampler))


def sampler_from_json(text: str) -> Any:
    """As `sampler_from_dict`, from JSON. Raises ConfigError where the text is no JSON object."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"a sampler's configuration is a JSON object; this is none ({error}): {text[:80]!r}"
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(f"a sampler's configuration is a JSON object; given: {text[:80]!r}")
    return sampler_from_dict(values)


def check_options(sampler: Any) -> None:
    """Raise ConfigError for a temperature that is negative or no number, and for steps or blocks under one."""
    if not (is_number(sampler.temperature) and sampler.temperature >= 0):
        raise ConfigError(f"temperature={sampler.temperature}: give 0 for the most likely tokens, or a positive number")
    for name, what in (("num_steps", "denoising steps"), ("block_length", "columns of a block")):
        value = getattr(sampler, name, None)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ConfigError(f"{name}={value}: the number of {what} is an integer of at least 1")


def check_reading(cache: Any, block_length: int | None, guidance: float) -> None:
    """Raise ConfigError for a cache that does not exist or has no blocks, and for a guidance that is no strength."""
    if cache not in get_args(CacheKind):
        meant = f" (write '{_of_bool(cache)}')" if isinstance(cache, bool) else ""
        raise ConfigError(f"cache={cache!r}: give one of {', '.join(get_args(CacheKind))}{meant}")
    if cache in ("prefix", "dual") and block_length is None:
        raise ConfigError(
            f"cache='{cache}' keeps keys and values inside a block and reads everything where one begins: give "
            "block_length (a block as long as the canvas keeps the prompt's over all steps)"
        )
    if not (is_number(guidance) and guidance >= 0):
        raise ConfigError(f"guidance={guidance}: give 0 for none, or a positive strength")


def is_number(value: Any) -> bool:
    """Whether this is a finite number; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
