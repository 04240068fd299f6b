"""Log-ratios of the same views under two policies, and their sums over views and tokens.

Legend: b rows, l canvas, k views; m score, w weight; a_i = sum over views of w m logp_i.
D = log new/old, d = log new/ref; DB, dB their sums over a completion.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.errors import ConfigError, NonFiniteError
from dllm_rl.records.types import LossInputs, Rollouts, Views


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


def log_ratio(inputs: LossInputs) -> Float[Tensor, "k b l"]:
    """log new/old of each term; exactly 0 where the scores are equal, and where nothing is scored."""
    if inputs.old is None:
        raise ConfigError(
            "this loss reads the old policy's scores, but its class declares needs_old = False, so that the trainer "
            "does not compute them. Declare needs_old = True."
        )
    return _difference(inputs.views, inputs.new, inputs.old)


def reference_log_ratio(inputs: LossInputs) -> Float[Tensor, "k b l"] | None:
    """log new/ref of each term; None where the method has no penalty, and so no reference scores."""
    return None if inputs.ref is None else _difference(inputs.views, inputs.new, inputs.ref)


def _difference(views: Views, new: Float[Tensor, "k b l"], other: Float[Tensor, "k b l"]) -> Float[Tensor, "k b l"]:
    return scored(views, new) - scored(views, other).detach()


def token_sum(views: Views, terms: Float[Tensor, "k b l"]) -> Float[Tensor, "b l"]:
    """Sum over views of weight x term: with log-probabilities a_i, with log-ratios D_i."""
    return (views.weight * terms).sum(0)


def sequence_sum(views: Views, terms: Float[Tensor, "k b l"]) -> Float[Tensor, " b"]:
    """Sum of `token_sum` over the canvas: with ELBO views the estimate B of the log-likelihood, or a difference."""
    return token_sum(views, terms).sum(-1)


def lengths(rollouts: Rollouts) -> Float[Tensor, " b"]:
    """Number of scored tokens per row, at least 1."""
    return rollouts.completion_mask.sum(-1).clamp(min=1).float()
