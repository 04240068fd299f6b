"""Reading a preset: a YAML file laid over its base, `key=value` overrides, and a check of the whole."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from dllm_rl.errors import ConfigError, unknown_name
from experiments.design.config import Preset, validate
from experiments.design.overrides import apply_override, merge, read_settings


def preset_names() -> list[str]:
    """Names of the presets that ship with the package."""
    folder = resources.files("experiments") / "presets"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_preset(name_or_path: str, overrides: list[str] | None = None) -> Preset:
    """Read a preset by name or by path, apply `dotted.key=value` overrides, and validate the whole.

    The override `quick=true` takes the preset's short variant, `<name>_quick`, instead.
    """
    overrides = list(overrides or [])
    if "quick=true" in overrides:
        overrides.remove("quick=true")
        if f"{name_or_path}_quick" not in preset_names():
            with_variant = [name.removesuffix("_quick") for name in preset_names() if name.endswith("_quick")]
            raise ConfigError(
                f"preset '{name_or_path}' has no quick variant; {', '.join(with_variant)} have one. For a short run of "
                "it override its size, such as seeds=[0] train.steps=4 evaluation.max_tasks=12."
            )
        name_or_path = f"{name_or_path}_quick"
    # Components with a default are spelled out, so that an override of one option keeps their name.
    defaults = {key: {"name": Preset.model_fields[key].default.name} for key in ("environment", "reward")}
    data = merge(defaults, _read(name_or_path), source=f"preset '{name_or_path}'")
    for override in overrides:
        data = apply_override(data, override)
    preset = validate(Preset, _without_dropped(data), source=f"preset '{name_or_path}'")
    for override in overrides:
        _refuse_covered(preset, override)
    return preset


def _refuse_covered(preset: Preset, override: str) -> None:
    """Raise ConfigError for a setting of the training that every level of a factor replaces by its own."""
    key, _, value = override.partition("=")
    name = key.removeprefix("train.")
    objectives = {**preset.control_objectives, **preset.objectives}
    for factor, levels in (("policies", preset.policies), ("objectives", objectives)):
        if name != key and all(name in level.train for level in levels.values()):
            raise ConfigError(
                f"{override} was given, and would change nothing: every level of {factor} sets its own {name}. "
                f"Write {factor}.{next(iter(levels))}.train.{name}={value}, for each that you mean."
            )


def _without_dropped(data: dict[str, Any]) -> dict[str, Any]:
    """Drop levels that are set to null: a preset removes levels of its base this way.

    Done before validation, because what follows a validator of plain data is no longer read as JSON, where a list may
    stand for a tuple.
    """
    kept = dict(data)
    for key in ("policies", "objectives", "control_objectives"):
        if isinstance(kept.get(key), dict):
            kept[key] = {name: level for name, level in kept[key].items() if level is not None}
    return kept


def _read(name_or_path: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The settings of a preset, laid over those of its `base`.

    Args:
        above: Presets whose base it is.
    """
    if name_or_path in above:
        chain = " -> ".join([*above, name_or_path])
        raise ConfigError(f"preset '{name_or_path}' is a base of itself ({chain}). Take another base.")
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise ConfigError(f"no preset file {path}")
        file: Path | Traversable = path
    elif name_or_path in preset_names():
        file = resources.files("experiments") / "presets" / f"{name_or_path}.yaml"
    else:
        raise unknown_name("preset", name_or_path, preset_names())
    data = read_settings(file, source=f"preset '{name_or_path}'")
    base = data.pop("base", None)
    below = {} if base is None else _read(str(base), (*above, name_or_path))
    return {**merge(below, data, source=f"preset '{name_or_path}'"), "name": data.get("name", path.stem)}
