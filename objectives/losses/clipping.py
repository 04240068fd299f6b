"""Clips of the importance ratio, in the log domain (PPO: 1707.06347, eq. 7)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# exp(20) = 4.9e8: beyond it a float32 surrogate carries no information, and its gradient is set to 0.
MAX_LOG_RATIO = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogate:
    """What a clip returns, in the shape of the log-ratio.

    Attributes:
        gain: To be maximised; at ratio 1 its gradient with respect to the log-ratio is the advantage.
        is_low, is_high: Entries whose gradient the lower or upper bound has cut.
    """

    gain: Float[Tensor, "..."]
    is_low: Bool[Tensor, "..."]
    is_high: Bool[Tensor, "..."]


def bounded_ratio(log_ratio: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """exp of the log-ratio, bounded to exp(+-MAX_LOG_RATIO) before the exponential."""
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def ppo(log_ratio: Float[Tensor, "..."], advantages: Float[Tensor, "..."], low: float, high: float) -> Surrogate:
    """min(r A, clip(r, 1 - low, 1 + high) A). Beware A < 0 with r > 1 + high: not clipped, gradient r A."""
    is_high = (advantages > 0) & (log_ratio > math.log1p(high))
    is_low = (advantages < 0) & (log_ratio < math.log1p(-low))
    return _clipped(log_ratio, advantages, is_low, is_high, low, high)


def unconditional(
    log_ratio: Float[Tensor, "..."], advantages: Float[Tensor, "..."], low: float, high: float
) -> Surrogate:
    """clip(r, 1 - low, 1 + high) A: no gradient outside the band, whatever the sign of the advantage."""
    is_high = log_ratio > math.log1p(high)
    is_low = log_ratio < math.log1p(-low)
    return _clipped(log_ratio, advantages, is_low, is_high, low, high)


def dual(
    log_ratio: Float[Tensor, "..."], advantages: Float[Tensor, "..."], low: float, high: float, ceiling: float
) -> Surrogate:
    """PPO, and for A < 0 no less than ceiling x A: closes its open side (1912.09729)."""
    inner = ppo(log_ratio, advantages, low, high)
    is_beyond = (advantages < 0) & (log_ratio > math.log(ceiling))
    gain = torch.where(is_beyond, ceiling * advantages, inner.gain)
    return Surrogate(gain=gain, is_low=inner.is_low, is_high=inner.is_high | is_beyond)


ClipName = Literal["ppo", "dual", "unconditional"]
# The ceiling is that of the dual clip's paper.
CLIPS: dict[str, Callable[[Tensor, Tensor, float, float], Surrogate]] = {
    "ppo": ppo,
    "dual": partial(dual, ceiling=3.0),
    "unconditional": unconditional,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """The band [1 - low, 1 + high] of the ratio, and the rule by which it cuts gradients."""

    low: float
    high: float
    rule: ClipName = "ppo"

    def __call__(self, log_ratio: Float[Tensor, "..."], advantages: Float[Tensor, "..."]) -> Surrogate:
        """The clipped gain, and which entries have lost their gradient."""
        return CLIPS[self.rule](log_ratio, advantages, self.low, self.high)


def _clipped(
    log_ratio: Tensor, advantages: Tensor, is_low: Tensor, is_high: Tensor, low: float, high: float
) -> Surrogate:
    ratio = bounded_ratio(log_ratio)
    bound = torch.where(is_high, torch.full_like(ratio, 1 + high), torch.full_like(ratio, 1 - low))
    gain = torch.where(is_low | is_high, bound, ratio) * advantages
    return Surrogate(gain=gain, is_low=is_low, is_high=is_high)
