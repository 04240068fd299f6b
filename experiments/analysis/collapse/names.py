"""One vocabulary for metrics: rows as our trainer, TRL, d1, ms-swift and verl write them, under the names used here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

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
