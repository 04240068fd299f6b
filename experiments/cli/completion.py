"""What the shell completes beside commands and options: presets, runs of this folder, kinds of components."""

from __future__ import annotations

from pathlib import Path

LISTABLE = {
    "objectives": "objective",
    "samplers": "sampler",
    "environments": "environment",
    "rewards": "reward",
    "policies": "policy",
    "presets": "preset",
}


def presets(incomplete: str) -> list[str]:
    """Presets that begin so."""
    from experiments.design.presets import preset_names

    return [name for name in preset_names() if name.startswith(incomplete)]


def runs(incomplete: str) -> list[str]:
    """Runs below runs/ that begin so."""
    folders = Path("runs").glob("*/config.json")
    return sorted(path.parent.name for path in folders if path.parent.name.startswith(incomplete))


def kinds(incomplete: str) -> list[str]:
    """Kinds that `list` takes and that begin so."""
    return [name for name in (*LISTABLE, "training") if name.startswith(incomplete)]
