"""One vocabulary for metrics: rows as our trainer, TRL and verl write them become rows under the names used here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Other name -> name here. Where a source has both, the one already present stays.
_ALIASES = {
    "ratio/ess": "ess",
    # TRL: GRPO and RLOO, then PPO
    "completions/mean_length": "completion_length",
    "rewards/success/mean": "success",
    "objective/scores": "reward",
    "objective/kl": "kl",
    "policy/entropy_avg": "entropy",
    "policy/clipfrac_avg": "clip_ratio/region_mean",
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
    "training/global_step": "step",
}
# Shares of completions cut off at the cap; the rest ended by themselves.
_CUT_SHARES = ("completions/clipped_ratio", "response_length/clip_ratio")


def uniform(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rename known metrics; add `ratio_spread` (95 % minus 5 % quantile) and `eos_share` where possible."""
    return [_uniform_row(row) for row in metrics]


def _uniform_row(row: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(row)
    for other, name in _ALIASES.items():
        if other in row:
            result.setdefault(name, row[other])
    for name in _CUT_SHARES:
        if row.get(name) is not None:
            result.setdefault("eos_share", 1 - row[name])
    low, high = row.get("ratio/q05"), row.get("ratio/q95")
    if low is not None and high is not None:
        result["ratio_spread"] = high - low
    return result
