"""From one entry a row or a token to the loss.

Each divides by `rollouts.totals`, the sizes of the whole optimiser step, so that micro-batch losses add up to its loss.
Legend: b rows, l canvas; R valid rows and T scored tokens of the step; N_b scored tokens of row b.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.records.types import Rollouts, Views
from objectives.losses.ratios import lengths


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
