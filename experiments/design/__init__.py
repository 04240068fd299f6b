"""The design of a grid: settings and presets (`config`), cells (`grid`), units of work (`units`) and `costs`."""

from experiments.design.config import (
    Component,
    Evaluation,
    Preset,
    build_environment,
    build_objective,
    build_reward,
    build_sampler,
    build_session,
)
from experiments.design.presets import load_preset, preset_names

__all__ = [
    "Component",
    "Evaluation",
    "Preset",
    "build_environment",
    "build_objective",
    "build_reward",
    "build_sampler",
    "build_session",
    "load_preset",
    "preset_names",
]
