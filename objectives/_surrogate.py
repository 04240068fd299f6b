"""The arithmetic that surrogate losses share: log-ratios on shared views, clips in the log domain, reductions.

Legend: b rows, l canvas, k views; m score, w weight; a_i = sum over views of w m logp_i. PPO clip: 1707.06347, eq. 7.
Reductions divide by `rollouts.totals`, the sizes of the whole optimiser step, so micro-batch losses add up to its loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dllm_rl.errors import NonFiniteError
from dllm_rl.types import Rollouts, Views

# exp(20) = 4.9e8: beyond it a float32 surrogate carries no information, and its gradient is set to 0.
MAX_LOG_RATIO = 20.0


def scored(views: Views, log_probs: Float[Tensor, "k b l"]) -> Float[Tensor, "k b l"]:
    """The terms where they are scored, 0 elsewhere. Raises where a scored term is not finite."""
    is_bad = views.score & ~log_probs.isfinite()
    if bool(is_bad.any()):
        view, row, column = is_bad.nonzero()[0].tolist()
        raise NonFiniteError(
            f"log-probability {float(log_probs[view, row, column])} at view {view}, row {row}, column {column}: the "
            "policy gives a scored token no probability. Check that sampler and policy ban the same ids, and the dtype."
        )
    return torch.where(views.score, log_probs, torch.zeros_like(log_probs))


def log_ratio(views: Views, new: Float[Tensor, "k b l"], old: Float[Tensor, "k b l"]) -> Float[Tensor, "k b l"]:
    """Difference of two scores of the same views; exactly 0 where they are equal, and where nothing is scored."""
    return scored(views, new) - scored(views, old).detach()


def token_sum(views: Views, terms: Float[Tensor, "k b l"]) -> Float[Tensor, "b l"]:
    """Sum over views of weight x term: with log-probabilities a_i, with log-ratios D_i."""
    return (views.weight * terms).sum(0)


def sequence_sum(views: Views, terms: Float[Tensor, "k b l"]) -> Float[Tensor, " b"]:
    """Sum of `token_sum` over the canvas: with ELBO views the estimate B of the log-likelihood, or a difference."""
    return token_sum(views, terms).sum(-1)


def lengths(rollouts: Rollouts) -> Float[Tensor, " b"]:
    """Number of scored tokens per row, at least 1."""
    return rollouts.completion_mask.sum(-1).clamp(min=1).float()


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogate:
    """What a clip returns, in the shape of the log-ratio.

    gain: to be maximised; at ratio 1 its gradient with respect to the log-ratio is the advantage.
    is_low, is_high: entries whose gradient the lower or upper bound has cut.
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


def _clipped(
    log_ratio: Tensor, advantages: Tensor, is_low: Tensor, is_high: Tensor, low: float, high: float
) -> Surrogate:
    ratio = bounded_ratio(log_ratio)
    bound = torch.where(is_high, torch.full_like(ratio, 1 + high), torch.full_like(ratio, 1 - low))
    gain = torch.where(is_low | is_high, bound, ratio) * advantages
    return Surrogate(gain=gain, is_low=is_low, is_high=is_high)


def sum_of_rows(rollouts: Rollouts, entries: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """The sum over valid rows."""
    return torch.where(rollouts.valid, entries, torch.zeros_like(entries)).sum()


def mean_of_rows(rollouts: Rollouts, entries: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """(1/R) sum over valid rows."""
    return sum_of_rows(rollouts, entries) / max(rollouts.totals.rows, 1)


def mean_of_sequences(rollouts: Rollouts, entries: Float[Tensor, "b l"]) -> Float[Tensor, ""]:
    """(1/R) sum_b (1/N_b) sum_i: every sequence weighs the same, and every token of it."""
    return mean_of_rows(rollouts, entries.sum(-1) / lengths(rollouts))


def mean_of_scored(rollouts: Rollouts, views: Views, entries: Float[Tensor, "b l"]) -> Float[Tensor, ""]:
    """As `mean_of_sequences`, over the tokens that the views score: a random share of each sequence."""
    num_scored = views.score.any(0).sum(-1).clamp(min=1)
    return mean_of_rows(rollouts, entries.sum(-1) / num_scored)


def mean_of_tokens(rollouts: Rollouts, entries: Float[Tensor, "b l"]) -> Float[Tensor, ""]:
    """(1/T) sum_b sum_i: every token of the step weighs the same."""
    return _valid_sum(rollouts, entries) / max(rollouts.totals.tokens, 1)


def mean_of_canvas(rollouts: Rollouts, entries: Float[Tensor, "b l"]) -> Float[Tensor, ""]:
    """(1/(R max_len)) sum_b sum_i: a constant normaliser, free of length bias (Dr. GRPO, 2503.20783)."""
    return _valid_sum(rollouts, entries) / max(rollouts.totals.rows * rollouts.totals.max_len, 1)


def _valid_sum(rollouts: Rollouts, entries: Float[Tensor, "b l"]) -> Float[Tensor, ""]:
    return torch.where(rollouts.valid[:, None], entries, torch.zeros_like(entries)).sum()
