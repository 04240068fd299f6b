"""Metrics of a run: one vocabulary for what trainers log, and one metric over the steps as a series.

Rows are read as our trainer, TRL, d1, ms-swift and verl write them. Every window scales with the length of the run, so
that a run of 100 steps and one of 1,000 are read alike."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

# Below this no trend can be told from noise: the shortest window thrice.
MIN_TREND_STEPS = 15
_MIN_WINDOW, _MAX_WINDOW = 5, 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Values of one metric at increasing steps. Rows without the metric are absent; non-finite values are kept."""

    name: str
    steps: Int[np.ndarray, " n"]
    values: Float[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.values)

    def finite(self) -> Series:
        """Only the finite values."""
        keep = np.isfinite(self.values)
        return Series(name=self.name, steps=self.steps[keep], values=self.values[keep])


def read_series(metrics: Sequence[Mapping[str, Any]], name: str) -> Series:
    """Take one metric out of the rows of a metrics file; the row number stands for a missing `step`.

    A null is a number that was not finite, as JSON has no other way to say it.
    """
    found = [(row.get("step", index), row[name]) for index, row in enumerate(metrics) if name in row]
    return Series(
        name=name,
        steps=np.array([step for step, _ in found], dtype=int),
        values=np.array([math.nan if value is None else float(value) for _, value in found], dtype=float),
    )


def window_of(num_steps: int) -> int:
    """Window in steps: a tenth of the run, from 5 to 50."""
    return min(_MAX_WINDOW, max(_MIN_WINDOW, num_steps // 10))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a run was logged. Detectors count rows, since noise is that of a row; what they say is in training steps.

    Attributes:
        num_rows: Rows that hold a training metric.
        num_steps: Training steps that they cover.
        stride: Steps between rows.
    """

    num_rows: int
    num_steps: int
    last_step: int
    stride: int

    @property
    def window(self) -> int:
        """Window of the run, in rows."""
        return window_of(self.num_rows)

    @property
    def window_steps(self) -> int:
        """Window of the run, in steps."""
        return self.window * self.stride

    @property
    def resolution(self) -> int:
        """Steps within which departures cannot be told apart: they are dated by a mean over as many."""
        return max(3, self.window // 2) * self.stride


def pace_of(steps: Sequence[int]) -> Pace:
    """Pace of a run from the steps of its rows, in order."""
    if not len(steps):
        return Pace(num_rows=0, num_steps=0, last_step=0, stride=1)
    stride, last = stride_of(steps), int(steps[-1])
    return Pace(num_rows=len(steps), num_steps=last - int(steps[0]) + stride, last_step=last, stride=stride)


def stride_of(steps: Sequence[int] | Int[np.ndarray, " n"]) -> int:
    """Usual number of steps from one row to the next."""
    return max(1, round(float(np.median(np.diff(steps))))) if len(steps) > 1 else 1


def trailing_mean(values: Float[np.ndarray, " n"], window: int) -> Float[np.ndarray, " m"]:
    """Mean over each full window, m = n - window + 1; entry i ends at value i + window - 1."""
    if len(values) < window:
        return np.empty(0)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[window:] - sums[:-window]) / window


def trailing_median(values: Float[np.ndarray, " n"], window: int) -> Float[np.ndarray, " m"]:
    """Median over each full window, as `trailing_mean`."""
    if len(values) < window:
        return np.empty(0)
    return np.median(np.lib.stride_tricks.sliding_window_view(values, window), axis=1)


def noise_of(values: Float[np.ndarray, " n"]) -> float:
    """Standard deviation of step-to-step noise, which a trend or a jump barely moves.

    The larger of two estimates from differences: the median one is robust, the mean one works where most steps tie.
    """
    if len(values) < 3:
        return 0.0
    differences = np.diff(values)
    by_median = 1.4826 * np.median(np.abs(differences - np.median(differences)))
    by_mean = math.sqrt(math.pi / 2) * np.mean(np.abs(differences))
    return float(max(by_median, by_mean)) / math.sqrt(2)


def first_streak(is_out: np.ndarray, length: int) -> int | None:
    """Index at which the first run of `length` true values starts."""
    run = 0
    for index, value in enumerate(is_out):
        run = run + 1 if value else 0
        if run == length:
            return index - length + 1
    return None


# Other name -> name here. Where a source has both, the one already present stays; of two others, the first.
_ALIASES = {
    "ratio/ess": "ess",
    # TRL: GRPO and RLOO, then PPO; d1, ESPO and TRL up to .17 have `clip_ratio` and `zero_std_ratio`
    "completions/mean_length": "completion_length",
    "rewards/success/mean": "success",
    "objective/scores": "reward",
    "objective/kl": "kl",
    "policy/entropy_avg": "entropy",
    "policy/clipfrac_avg": "clip_ratio/region_mean",
    "clip_ratio": "clip_ratio/region_mean",
    "zero_std_ratio": "frac_reward_zero_std",
    # verl
    "critic/score/mean": "reward",
    "critic/rewards/mean": "reward",
    "actor/entropy": "entropy",
    "actor/entropy_loss": "entropy",
    "actor/kl_loss": "kl",
    "actor/grad_norm": "grad_norm",
    "actor/pg_clipfrac": "clip_ratio/region_mean",
    "actor/pg_loss": "loss",
    "response_length/mean": "completion_length",
    "response_length/clip_ratio": "cut_share",
    "completions/clipped_ratio": "cut_share",
    "eval/reward": "eval_reward",
}
# Prefix of trackers: wandb and TensorBoard as transformers feeds them.
_PREFIX = "train/"
# A reward that is a sum: each part is logged as `rewards/<name>/mean` (TRL, ms-swift), formerly `rewards/<name>`.
_COMPONENT = re.compile(r"rewards/[^/]+(/mean)?")
# verl's scores on held-out prompts, one a data source.
_VALIDATION = re.compile(r"val-core/.*/mean@\d+|val/test_score/.*")


def uniform(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rename known metrics; add `ratio_spread` (95 % minus 5 % quantile) and `eval_reward` (mean over data sources)."""
    return [_uniform_row(row) for row in metrics]


# What a run can be diagnosed by, under the names used here.
_JUDGED = frozenset(
    (
        "reward",
        "success",
        "claim",
        "reward_gap",
        "rank_agreement",
        "entropy",
        "unique_completions",
        "frac_reward_zero_std",
        "reward_std",
        "all_good",
        "kl",
        "ratio_spread",
        "ratio/mean",
        "ratio/far_share",
        "ratio_dev_u0",
        "clip_ratio/region_mean",
        "ess",
        "grad_norm",
        "loss",
        "parse_valid",
        "completion_length",
        "eos_share",
        "cut_share",
        "masks_left",
        "fault_share",
        "judge_fault_share",
        "eval_reward",
    )
)


def is_known(name: str) -> bool:
    """Whether a metric can be judged, under any of its names."""
    bare = name.removeprefix(_PREFIX)
    return any(pattern.fullmatch(bare) for pattern in (_COMPONENT, _VALIDATION)) or bare in _JUDGED | _ALIASES.keys()


def component_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the parts that the reward is a sum of, in the order in which they turn up."""
    return list(dict.fromkeys(name for row in rows for name in row if _COMPONENT.fullmatch(name)))


def _uniform_row(row: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(row)
    for name, value in row.items():
        if name.startswith(_PREFIX):
            result.setdefault(name.removeprefix(_PREFIX), value)
    for other, name in _ALIASES.items():
        if other in result:
            result.setdefault(name, result[other])
    low, high = row.get("ratio/q05"), row.get("ratio/q95")
    if low is not None and high is not None:
        result["ratio_spread"] = high - low
    validation = [value for name, value in row.items() if _VALIDATION.fullmatch(name) and value is not None]
    if validation:
        result.setdefault("eval_reward", sum(validation) / len(validation))
    return result
