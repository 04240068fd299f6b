"""Estimators of the KL divergence to the reference policy, from d = log new/ref on samples of new (k1, k2, k3).

As a loss: the gradient of k2 is that of the reverse KL(new, ref); of k3 that of the forward KL(ref, new); of k1 zero in
the mean, so k1 is only a metric. k3 grows like exp(-d): it is for single tokens, and k2 for whole sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from torch import Tensor

# At d = -5 a token-level k3 is 142 and its derivative -147; beyond it one token would outweigh the batch.
MAX_TOKEN_LOG_RATIO = 5.0

KLName = Literal["k2", "k3"]


def k1(d: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """d: unbiased, of zero mean gradient."""
    return d


def k2(d: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """d^2 / 2."""
    return d.square() / 2


def k3(d: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """exp(-d) - 1 + d, with d clamped to +-MAX_TOKEN_LOG_RATIO: unbiased within the clamp, never negative."""
    d = d.clamp(-MAX_TOKEN_LOG_RATIO, MAX_TOKEN_LOG_RATIO)
    return (-d).expm1() + d


TOKEN_KL: dict[str, Callable[[Tensor], Tensor]] = {"k2": k2, "k3": k3}
