"""A curriculum of horizons: episodes may take few turns at first, and more in later stages.

Short horizons first, then longer ones, is how OpenWebRL trains (15, then 30 turns; 2606.02031), and AgentGym-RL finds
that long ones from the start collapse (2509.08755). An episode that is cut off counts as having used up its
turns; its reward is for what was achieved by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from pydantic import BaseModel, ConfigDict, Field

from dllm_rl.errors import ConfigError


class HorizonStage(BaseModel):
    """A stretch of a training run.

    Attributes:
        steps: Training steps that it takes.
        max_turns: Turns after which an episode ends.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    steps: int = Field(ge=1)
    max_turns: int = Field(ge=1)


def max_turns_at(stages: Sequence[HorizonStage] | None, step: int) -> int | None:
    """Turns that an episode of this step may take; None where the environment's own limit holds."""
    ends = accumulate(stage.steps for stage in stages or ())
    return next((stage.max_turns for stage, end in zip(stages or (), ends, strict=True) if step < end), None)


def refuse_horizon(stages: Sequence[HorizonStage] | None, num_steps: int) -> None:
    """Raise ConfigError for stages that do not lengthen, or that a run of so many steps would not finish."""
    if not stages:
        return
    turns = [stage.max_turns for stage in stages]
    if any(one >= other for one, other in pairwise(turns)):
        raise ConfigError(
            f"horizon has max_turns {', '.join(map(str, turns))}; expected more in each stage than in the one before."
        )
    taken = sum(stage.steps for stage in stages)
    if taken > num_steps:
        raise ConfigError(
            f"the stages of horizon take {taken} steps, and training has {num_steps}. Shorten them, or raise "
            "train.steps."
        )


def refuse_endless_horizon(stages: Sequence[HorizonStage] | None, limit: int | None) -> None:
    """Raise ConfigError where the environment ends episodes before a stage would.

    Args:
        limit: Turns after which the environment ends an episode; None where it does not say.
    """
    if stages and limit is not None and stages[-1].max_turns >= limit:
        raise ConfigError(
            f"horizon has a stage of {stages[-1].max_turns} turns, and the environment ends episodes after {limit}. "
            "Shorten the stage, leave it out (the environment's limit follows the last one), or raise the "
            "environment's max_turns."
        )
