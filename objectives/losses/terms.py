"""Clipped loss terms with a KL penalty, by what one ratio spans: a token, an event of a denoising step, or a sequence.

Each returns minus the clipped gain plus beta x KL, one entry per ratio, and leaves the reduction to the method.
Legend: b rows, l canvas, k views; D = log new/old, d = log new/ref, both summed over views with their weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.records.types import LossInputs, Views
from objectives.losses.clipping import Clip
from objectives.losses.metrics import clip_metrics, kl_metrics, ratio_metrics
from objectives.losses.ratios import k2, lengths, log_ratio, reference_log_ratio, sequence_sum, token_sum

Estimator = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Loss terms in the shape of the ratios, 0 where nothing is scored, and metrics over the scored ones."""

    entries: Float[Tensor, "..."]
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalty:
    """beta x value enters the loss; d, log new/ref, is what the value estimates the KL from."""

    beta: float
    d: Float[Tensor, "..."]
    value: Float[Tensor, "..."]


def clipped_terms(
    log_ratio: Float[Tensor, "..."],
    advantages: Float[Tensor, "..."],
    is_scored: Bool[Tensor, "..."],
    clip: Clip,
    penalty: Penalty | None = None,
) -> Terms:
    """-clip(ratio, advantages) + beta x KL, entry by entry. advantages broadcast to the shape of log_ratio."""
    advantages = advantages.expand_as(log_ratio)
    surrogate = clip(log_ratio, advantages)
    entries = -surrogate.gain
    metrics = ratio_metrics(log_ratio, advantages, is_scored)
    metrics |= clip_metrics(surrogate, advantages, log_ratio, is_scored)
    if penalty is not None:
        entries = entries + penalty.beta * penalty.value
        metrics |= kl_metrics(penalty.d, penalty.value, is_scored)
    return Terms(entries=torch.where(is_scored, entries, torch.zeros_like(entries)), metrics=metrics)


def token_advantages(inputs: LossInputs) -> Float[Tensor, "b l"]:
    """Advantages of tokens whose views are merged. Raises ConfigError where they are those of steps."""
    if inputs.advantages.dim() > 1 and inputs.views.step is not None:
        raise ConfigError(
            "advantages of single steps were given, and this loss merges the steps of a token. Return one a row from "
            "`advantages`, or build the loss from step_terms."
        )
    return inputs.term_advantages[0]


def token_terms(inputs: LossInputs, clip: Clip, beta: float, kl: Estimator) -> Terms:
    """One ratio exp(D_i) per token, (b, l); views are merged inside the ratio."""
    views, d = inputs.views, reference_log_ratio(inputs)
    is_scored = views.score.any(0) & inputs.rollouts.valid[:, None]
    penalty = None
    if d is not None:
        d = token_sum(views, d)
        penalty = Penalty(beta=beta, d=d, value=kl(d))
    return clipped_terms(token_sum(views, log_ratio(inputs)), token_advantages(inputs), is_scored, clip, penalty)


def step_terms(inputs: LossInputs, clip: Clip, beta: float, kl: Estimator) -> Terms:
    """One ratio exp(D_ki) per event of a replayed step, (k, b, l), times the step's loss_weight."""
    views, d = inputs.views, reference_log_ratio(inputs)
    is_scored = views.score & inputs.rollouts.valid[:, None]
    penalty = None if d is None else Penalty(beta=beta, d=d, value=kl(d))
    terms = clipped_terms(log_ratio(inputs), inputs.term_advantages, is_scored, clip, penalty)
    return Terms(entries=weighted(views, terms.entries), metrics=terms.metrics)


def weighted(views: Views, entries: Float[Tensor, "k b l"]) -> Float[Tensor, "k b l"]:
    """Entries times the views' loss_weight, where they carry one."""
    return entries if views.loss_weight is None else views.loss_weight * entries


def sequence_terms(inputs: LossInputs, clip: Clip, beta: float) -> Terms:
    """One length-normalised ratio exp(DB / N) per sequence, (b,), and k2(dB) / N as penalty."""
    views, num_tokens, d = inputs.views, lengths(inputs.rollouts), reference_log_ratio(inputs)
    if inputs.advantages.dim() > 1:
        raise ConfigError(
            f"advantages of shape {tuple(inputs.advantages.shape)} were given, and this loss has one ratio a row. "
            "Return one a row from `advantages`."
        )
    penalty = None
    if d is not None:
        d = sequence_sum(views, d)
        penalty = Penalty(beta=beta, d=d, value=k2(d) / num_tokens)
    mean_ratio = sequence_sum(views, log_ratio(inputs)) / num_tokens
    return clipped_terms(mean_ratio, inputs.advantages, inputs.rollouts.valid, clip, penalty)
