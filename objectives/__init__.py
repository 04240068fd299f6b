"""Reinforcement-learning objectives, one method a file, on shared blocks that plug-ins of third parties use too.

The blocks: `Method` and the option types (`objectives.base`); log-ratios, clips, KL estimators, loss terms by level,
reductions and metrics (`objectives.losses`). See docs/objectives.md.
"""

from objectives.base import AboveOne, BelowOne, Count, Method, NonNegative, NoPenalty, Positive
from objectives.losses.clipping import CLIPS, Clip, ClipName, Surrogate, bounded_ratio, dual, ppo, unconditional
from objectives.losses.kl import TOKEN_KL, KLName, k1, k2, k3
from objectives.losses.metrics import clip_metrics, kl_metrics, ratio_metrics
from objectives.losses.ratios import lengths, log_ratio, reference_log_ratio, scored, sequence_sum, token_sum
from objectives.losses.reductions import (
    mean_of_canvas,
    mean_of_rows,
    mean_of_scored,
    mean_of_sequences,
    mean_of_tokens,
    sum_of_rows,
)
from objectives.losses.terms import (
    Penalty,
    Terms,
    clipped_terms,
    sequence_terms,
    step_terms,
    token_terms,
    weighted,
)

__all__ = [
    "CLIPS",
    "TOKEN_KL",
    "AboveOne",
    "BelowOne",
    "Clip",
    "ClipName",
    "Count",
    "KLName",
    "Method",
    "NoPenalty",
    "NonNegative",
    "Penalty",
    "Positive",
    "Surrogate",
    "Terms",
    "bounded_ratio",
    "clip_metrics",
    "clipped_terms",
    "dual",
    "k1",
    "k2",
    "k3",
    "kl_metrics",
    "lengths",
    "log_ratio",
    "mean_of_canvas",
    "mean_of_rows",
    "mean_of_scored",
    "mean_of_sequences",
    "mean_of_tokens",
    "ppo",
    "ratio_metrics",
    "reference_log_ratio",
    "scored",
    "sequence_sum",
    "sequence_terms",
    "step_terms",
    "sum_of_rows",
    "token_sum",
    "token_terms",
    "unconditional",
    "weighted",
]
