"""Plain-number metrics of a loss: ratios, clips and KL, with TRL's names where the meaning is the same.

What each name means and how to read it stands in docs/metrics.md. A metric is absent where nothing valid was scored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from objectives.losses.clipping import Surrogate, bounded_ratio
from objectives.losses.ratios import MAX_TOKEN_LOG_RATIO, k1, k2, k3

# Log-ratio above which a negative sample without a clip is counted, the same for every method and clip width.
UNCLIPPED_LOG_RATIO = 0.2


@torch.no_grad()
def ratio_metrics(
    log_ratio: Float[Tensor, "..."], advantages: Float[Tensor, "..."], is_scored: Bool[Tensor, "..."]
) -> dict[str, float]:
    """Distribution of the importance ratio over the scored entries, and its extremes by the sign of the advantage."""
    log_r = log_ratio[is_scored].float()
    if log_r.numel() == 0:
        return {}
    ratio = bounded_ratio(log_r)
    advantages = advantages.expand_as(log_ratio)[is_scored]
    q05, q50, q95 = _quantiles(ratio, (0.05, 0.5, 0.95))
    ones = torch.ones_like(ratio)
    return _floats(
        {
            "ratio/mean": ratio.mean(),
            "ratio/q05": q05,
            "ratio/q50": q50,
            "ratio/q95": q95,
            "ratio/min": ratio.min(),
            "ratio/max": ratio.max(),
            "ratio/positive/max": torch.where(advantages > 0, ratio, ones).max(),
            "ratio/negative/max": torch.where(advantages < 0, ratio, ones).max(),
            "ratio/ess": ratio.sum().square() / (ratio.numel() * ratio.square().sum()),
            "ratio/far_share": (log_r.abs() > 1).float().mean(),
            "ratio_dev": (ratio - 1).abs().max(),
        }
    )


@torch.no_grad()
def clip_metrics(
    surrogate: Surrogate,
    advantages: Float[Tensor, "..."],
    log_ratio: Float[Tensor, "..."],
    is_scored: Bool[Tensor, "..."],
) -> dict[str, float]:
    """Shares of scored entries whose gradient the clip has cut, and of those that escape it: A < 0 and r > e^.2."""
    if not bool(is_scored.any()):
        return {}
    is_low, is_high = surrogate.is_low[is_scored].float(), surrogate.is_high[is_scored].float()
    is_unclipped = ((advantages < 0) & (log_ratio > UNCLIPPED_LOG_RATIO))[is_scored].float()
    return _floats(
        {
            "clip_ratio/low_mean": is_low.mean(),
            "clip_ratio/high_mean": is_high.mean(),
            "clip_ratio/region_mean": (is_low + is_high).clamp(max=1).mean(),
            "clip_ratio/unclipped_negative_share": is_unclipped.mean(),
        }
    )


@torch.no_grad()
def kl_metrics(
    d: Float[Tensor, "..."] | None, in_use: Float[Tensor, "..."] | None, is_scored: Bool[Tensor, "..."]
) -> dict[str, float]:
    """Mean of each estimator over the scored entries; `kl` is the one that the loss uses."""
    if d is None or in_use is None or not bool(is_scored.any()):
        return {}
    d = d[is_scored].float()
    return _floats(
        {
            "kl": in_use[is_scored].mean(),
            "kl_k1": k1(d).mean(),
            "kl_k2": k2(d).mean(),
            "kl_k3": k3(d).mean(),
            "kl_clamped_share": (d.abs() > MAX_TOKEN_LOG_RATIO).float().mean(),
        }
    )


def _floats(metrics: dict[str, Tensor]) -> dict[str, float]:
    values = torch.stack([value.float() for value in metrics.values()]).tolist()
    return dict(zip(metrics, values, strict=True))


def _quantiles(values: Float[Tensor, " n"], shares: Sequence[float]) -> list[Float[Tensor, ""]]:
    """Quantiles with linear interpolation. `torch.quantile` refuses more than 2^24 entries."""
    ordered = values.sort().values
    places = [share * (len(ordered) - 1) for share in shares]
    return [torch.lerp(ordered[math.floor(place)], ordered[math.ceil(place)], place % 1) for place in places]
