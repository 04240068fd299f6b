"""Log-ratios of the same views under two policies, KL estimates made of them, and reductions to the loss.

KL estimators take d = log new/ref on samples of new (k1, k2, k3). As a loss, the gradient of k2 is that of the reverse
KL(new, ref), of k3 that of the forward KL(ref, new); of k1 it is zero in the mean, so k1 is only a metric. k3 grows
like exp(-d): it is for single tokens, and k2 for whole sequences.

Reductions divide by `rollouts.totals`, the sizes of the whole optimiser step, so that micro-batch losses add up.

Legend: b rows, l canvas, k views; m score, w weight; a_i = sum over views of w m logp_i. D = log new/old,
d = log new/ref; DB, dB their sums over a completion. R valid rows and T scored tokens of the step; N_b scored tokens
of row b.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

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


def counting_scored(inputs: LossInputs) -> LossInputs:
    """The same inputs, whose rows are as long as what their views score: all columns after `scoring_all`."""
    rollouts = replace(inputs.rollouts, completion_mask=inputs.views.score.any(0))
    return replace(inputs, rollouts=rollouts)


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
