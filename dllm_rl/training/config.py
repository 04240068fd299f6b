"""Settings of a training run: learning rate, bounds of inner updates, trackers; and which combinations are refused."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dllm_rl.errors import ConfigError
from dllm_rl.records.types import Replays, Rollouts
from dllm_rl.training.credit import NO_CREDIT, StepCredit
from dllm_rl.training.horizon import HorizonStage, refuse_horizon
from dllm_rl.training.turns import USUAL_NORMALISER, TurnNormaliser

if TYPE_CHECKING:
    from dllm_rl.policies.base import BasePolicy
    from dllm_rl.protocols import Objective, Sampler
    from dllm_rl.training.distance import Distance


def refuse_unreplayable(policy: type[BasePolicy], sampler: Sampler, objective: Objective) -> None:
    """Raise ConfigError where the objective would score the sampler's draws by other probabilities than theirs."""
    if policy.is_exact:
        return
    is_replay = objective.replays is not Replays.NONE
    if sampler.grammar and not is_replay:
        raise ConfigError(
            f"sampler '{sampler.name}' draws under the grammar, and objective '{objective.name}' scores views of the "
            "unconstrained policy. Set decoding.grammar=evaluation, or take an objective that replays the draws, such "
            "as cj_grpo."
        )
    if sampler.grammar and objective.replays is Replays.MERGED and not policy.constrains_whole_canvas:
        raise ConfigError(
            f"sampler '{sampler.name}' draws under the grammar, where the draws of one step are scored together, and a "
            f"view of objective '{objective.name}' merges steps, which in the {policy.family} family may lie in "
            "several blocks. Set decoding.grammar=evaluation, or take an objective that replays single steps, such as "
            "cj_grpo (with num_steps=null it replays all)."
        )
    if is_replay and sampler.approximation is not None:
        raise ConfigError(
            f"sampler '{sampler.name}' {sampler.approximation}, and objective '{objective.name}' replays recorded "
            "draws, which at full forwards of the recorded states have other probabilities. Train with another sampler "
            "or without that option (evaluation may have it), or take an objective that does not replay."
        )


# Fields of `Rollouts` that are there where rows are turns of episodes. Intermediate answers and their rewards are made
# on request, and all others are always there.
_OF_TURNS = {"turn_facts", "episode_ids"}


def refuse_unrecorded(objective: Objective, *, is_episodic: bool) -> None:
    """Raise ConfigError where an objective requires what rollouts do not hold.

    Args:
        is_episodic: Whether rows are turns of episodes.
    """
    required = set(objective.requires)
    known = [item.name for item in fields(Rollouts)]
    if unknown := sorted(required - set(known)):
        raise ConfigError(
            f"objective '{objective.name}' requires {', '.join(unknown)}, and rollouts have no such field. Name fields "
            f"of Rollouts: {', '.join(known)}."
        )
    if not is_episodic and (of_turns := sorted(required & _OF_TURNS)):
        raise ConfigError(
            f"objective '{objective.name}' requires {', '.join(of_turns)}, which only turns of episodes have, and "
            "these rollouts are whole plans. Take an environment of episodes, or another objective."
        )


Tracker = Literal["tensorboard", "trackio", "wandb"]


def require_tracker(name: Tracker | None) -> None:
    """Raise ConfigError where a tracker's package is missing."""
    if name is not None and importlib.util.find_spec(name) is None:
        raise ConfigError(f"train.tracker={name} needs the package {name}: pip install 'dllm-rl[{name}]'")


@contextmanager
def tracked(
    name: Tracker | None, run_dir: Path, settings: Mapping[str, Any]
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Open one of accelerate's trackers for the time of a run, and finish it whatever happens.

    Yields what sends a row of metrics to it; without a tracker that does nothing.
    """
    if name is None:
        yield lambda row: None
        return
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    # Its trackers write to a log that refuses to work before.
    PartialState()
    made: Any = LOGGER_TYPE_TO_CLASS[name]
    run = f"{run_dir.parent.name}/{run_dir.name}"
    where = {"logging_dir": str(run_dir)} if made.requires_logging_directory else {"name": run}
    tracker = made("dllm_rl", **where)
    tracker.start()
    try:
        tracker.store_init_configuration({key: value for key, value in settings.items() if value is not None})
        yield lambda row: tracker.log(trackable(row), step=row["step"])
    finally:
        tracker.finish()


def trackable(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row that a tracker can draw."""
    return {key: value for key, value in row.items() if isinstance(value, int | float) and math.isfinite(value)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Bounds of the distance; None sets none.

    Attributes:
        log_ratio: Of the mean abs(log new/old).
        kl: Of the estimated KL.
    """

    log_ratio: float | None = None
    kl: float | None = None

    @property
    def is_set(self) -> bool:
        """Whether there is anything to stop at."""
        return self.log_ratio is not None or self.kl is not None

    def is_passed(self, distance: Distance) -> bool:
        """Whether the distance exceeds a bound. Not finite counts as beyond."""
        pairs = ((distance.log_ratio, self.log_ratio), (distance.kl, self.kl))
        return any(bound is not None and not value <= bound for value, bound in pairs)


class TrainConfig(BaseModel):
    """Settings of a training run. learning_rate 0 trains nothing and is the null control.

    Attributes:
        temperature: Of the sampler, which has the last word: a trainer refuses one that differs.
        micro_batch_rows: Distinct inputs (rows x views, equal ones counted once) whose activations are held at a time;
            decides memory, not the result; gradients of half-precision weights are added up in their own precision.
        adam_epsilon: Floor under AdamW's divisor. Policy gradients of a small policy are near 1e-4 a weight, far
            smaller at embeddings that a batch rarely uses; at 1e-8 those take full steps of noise
            (docs/results/lab_notebook.md).
        lr_scheduler_type: Transformers' name; `linear` falls to zero over the run, and with it the last weights' noise.
        tracker: Metrics go there too, beside metrics.jsonl; it changes no number.
        target_log_ratio, target_kl: End the inner updates on a batch where the mean abs(log new/old) a scored term, or
            the estimated KL(old, new), passes it (`dllm_rl.training.distance`).
        resample_rounds: Times that groups without variance are replaced by groups of other tasks; it spends rollouts
            that other methods do not (`dllm_rl.training.groups`).
        shuffles_rewards: Each step's rewards are dealt anew among its rollouts before anything learns from them, so
            that they say nothing: a null control with updates of the usual size. Logged rewards are the true ones.
        turn_normaliser: How much the turns of an episode weigh (`dllm_rl.training.turns`). Whole plans have one turn.
        step_credit: What a turn earns beside the advantage of its episode (`dllm_rl.training.credit`).
        importance_sampling_cap: Each draw of an engine is weighted by the policy's probability of it over the engine's,
            up to this cap (`dllm_rl.training.correction`). None: all weights are 1.
        horizon: Stages in which episodes may take fewer turns than the environment allows; it allows its own after the
            last one (`dllm_rl.training.horizon`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    steps: int = Field(20, ge=0)
    prompts_per_step: int = Field(8, ge=1)
    group_size: int = Field(8, ge=2)
    inner_steps: int = Field(1, ge=1)
    learning_rate: float = Field(1e-4, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    temperature: float = Field(1.0, gt=0)
    seed: int = 0
    micro_batch_rows: int = Field(32, ge=1)
    checkpoint_every: int = Field(5, ge=1)
    weight_decay: float = Field(0.0, ge=0)
    adam_epsilon: float = Field(1e-8, gt=0)
    warmup_steps: int = Field(0, ge=0)
    lr_scheduler_type: Literal["constant", "linear"] = "constant"
    tracker: Tracker | None = None
    target_log_ratio: float | None = Field(None, gt=0)
    target_kl: float | None = Field(None, gt=0)
    resample_rounds: int = Field(0, ge=0, le=16)
    shuffles_rewards: bool = False
    turn_normaliser: TurnNormaliser = USUAL_NORMALISER
    step_credit: StepCredit = NO_CREDIT
    importance_sampling_cap: float | None = Field(None, ge=1)
    horizon: tuple[HorizonStage, ...] | None = Field(None, min_length=1, strict=False)

    @property
    def targets(self) -> Targets:
        """Where the inner updates end early."""
        return Targets(log_ratio=self.target_log_ratio, kl=self.target_kl)

    def rate_at(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then constant or falling to zero at the end.

        The first step has a rate above zero, where transformers' schedules of these names begin at zero.
        """
        rising = (step + 1) / self.warmup_steps if self.warmup_steps else 1.0
        is_falling = self.lr_scheduler_type == "linear" and self.steps > self.warmup_steps
        falling = (self.steps - step) / (self.steps - self.warmup_steps) if is_falling else 1.0
        return self.learning_rate * min(1.0, rising, falling)


def refuse_settings(config: TrainConfig, objective: Objective) -> None:
    """Raise ConfigError for settings that the objective is not defined for, and for those that nothing would read."""
    refuse_horizon(config.horizon, config.steps)
    limit = objective.max_inner_steps
    if limit is not None and config.inner_steps > limit:
        raise ConfigError(
            f"objective '{objective.name}' allows at most {limit} inner steps; given inner_steps={config.inner_steps}."
        )
    if config.inner_steps < objective.min_inner_steps:
        raise ConfigError(
            f"objective '{objective.name}' needs at least {objective.min_inner_steps} inner steps, without which its "
            f"own options have no effect; given inner_steps={config.inner_steps}. Raise it."
        )
    if config.targets.is_set and config.inner_steps == 1:
        raise ConfigError(
            "target_log_ratio and target_kl end the inner steps on a batch, of which the first is never left out; "
            "given inner_steps=1. Set inner_steps to 2 or more, or leave the targets out."
        )
    if config.shuffles_rewards and "step_rewards" in objective.requires:
        raise ConfigError(
            f"shuffles_rewards=true deals the rewards of rollouts anew, but objective '{objective.name}' learns from "
            "rewards of single steps, which would stay true. Take another objective, or learning_rate=0 for a null."
        )
    if config.shuffles_rewards and config.step_credit != NO_CREDIT:
        raise ConfigError(
            f"shuffles_rewards=true deals the rewards of episodes anew, but step_credit={config.step_credit} pays "
            "turns by what happened in them, which would stay true. Leave step_credit out, or take learning_rate=0 for "
            "a null."
        )
    if config.step_credit != NO_CREDIT and "step_rewards" in objective.requires:
        raise ConfigError(
            f"step_credit={config.step_credit} adds to one advantage a turn, and objective '{objective.name}' has one "
            "a denoising step. Leave it out, or take another objective."
        )
    if config.resample_rounds and config.step_credit != NO_CREDIT:
        raise ConfigError(
            f"resample_rounds={config.resample_rounds} replaces groups whose rewards are all equal, but with "
            f"step_credit={config.step_credit} their turns have a gradient. Leave one of the two out."
        )
    if config.resample_rounds and objective.learns_from_flat_groups:
        raise ConfigError(
            f"resample_rounds={config.resample_rounds} replaces groups whose rewards are all equal, but with "
            f"objective '{objective.name}' as it is set they have a gradient (a KL penalty, a regression, rewards of "
            "single steps, or advantage=shrunk). Set beta=0 where there is a penalty, take another advantage than "
            "shrunk, or resample_rounds=0."
        )


# Settings of turns, with the values under which they change nothing for whole plans.
TURN_SETTINGS = {"turn_normaliser": USUAL_NORMALISER, "step_credit": NO_CREDIT, "horizon": None}


def turn_settings(config: TrainConfig) -> list[str]:
    """The settings of turns that are not as usual, as `name=value`."""
    given = config.model_dump(mode="json", include=set(TURN_SETTINGS))
    return [f"{name}={value}" for name, value in given.items() if value != TURN_SETTINGS[name]]
