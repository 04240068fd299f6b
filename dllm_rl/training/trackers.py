"""Experiment trackers, through accelerate: what metrics.jsonl holds goes there too."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dllm_rl.errors import ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator

Tracker = Literal["tensorboard", "trackio", "wandb"]


def require_tracker(name: Tracker | None) -> None:
    """Raise ConfigError where a tracker's package is missing, which accelerate would pass over in silence."""
    if name is not None and importlib.util.find_spec(name) is None:
        raise ConfigError(f"train.tracker={name} needs the package {name}: pip install 'dllm-rl[{name}]'")


@contextmanager
def tracked(accelerator: Accelerator, run_dir: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Open the accelerator's tracker, if it has one, for the time of a run, and finish it whatever happens."""
    if accelerator.log_with:
        known = {key: value for key, value in settings.items() if value is not None}
        run = {"name": f"{run_dir.parent.name}/{run_dir.name}"}
        accelerator.init_trackers("dllm_rl", config=known, init_kwargs={"wandb": run, "trackio": run})
    try:
        yield
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()


def trackable(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row that a tracker can draw."""
    return {key: value for key, value in row.items() if isinstance(value, int | float) and math.isfinite(value)}
