"""What a training run depends on, as its state records it, so that a run never goes on as another one.

The units of a grid have folders of their own for all of that. A script names its folder itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dllm_rl.options import stated

if TYPE_CHECKING:
    from dllm_rl.load_options import LoadOptions
    from dllm_rl.protocols import Objective
    from dllm_rl.training.config import TrainConfig
    from dllm_rl.training.engine import RolloutEngine

# Settings that may differ: how far a run goes, and what decides no number.
_FREE = {"steps", "checkpoint_every", "micro_batch_rows", "tracker"}
_NUM_SHOWN = 3


def provenance(
    engine: RolloutEngine, objective: Objective, config: TrainConfig, loading: LoadOptions
) -> dict[str, Any]:
    """Return by dotted name what decides the numbers of a run, as plain data.

    What has no name of its own is left out: the weights that it began with, tasks, and functions.
    """
    parts = {
        "objective": {"name": objective.name, "version": objective.version, **stated(objective)},
        "sampler": {"name": engine.sampler.name, **stated(engine.sampler)},
        "reward": {"name": type(engine.reward).__qualname__, **stated(engine.reward)},
        "policy": stated(engine.policy.facts),
        "train": config.model_dump(mode="json", exclude=_FREE),
        "loading": {"optimiser": loading.optimiser},
    }
    return {f"{part}.{key}": value for part, facts in parts.items() for key, value in facts.items()}


def differences(stored: Mapping[str, Any], given: Mapping[str, Any]) -> str | None:
    """Return in words what a stored run was trained by, and what is given instead; None where nothing differs.

    What only one of them names is an option that came later.
    """
    others = [key for key, value in stored.items() if key in given and given[key] != value][:_NUM_SHOWN]
    if not others:
        return None
    before, now = (", ".join(f"{key}={facts[key]}" for key in others) for facts in (stored, given))
    return f"{before}; given: {now}"
