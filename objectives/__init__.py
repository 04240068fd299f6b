"""Reinforcement-learning objectives, one method a file, on shared blocks that plug-ins of third parties use too.

The blocks: `Method` and the option types, views' sums and
log-ratios, clips, KL estimators, loss terms by level, and reductions. See docs/objectives.md.
"""

from objectives._kl import TOKEN_KL, KLName, k1, k2, k3
from objectives._method import BelowOne, Count, Method, NonNegative, NoPenalty, Positive
from objectives._metrics import clip_metrics, kl_metrics, ratio_metrics
from objectives._surrogate import (
    CLIPS,
    ClipName,
    Surrogate,
    dual,
    lengths,
    log_ratio,
    mean_of_canvas,
    mean_of_rows,
    mean_of_scored,
    mean_of_sequences,
    mean_of_tokens,
    ppo,
    scored,
    sequence_sum,
    sum_of_rows,
    token_sum,
    unconditional,
)
from objectives._terms import Clip, Penalty, Terms, clipped_terms, sequence_terms, step_terms, token_terms

__all__ = [
    "CLIPS",
    "TOKEN_KL",
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
    "scored",
    "sequence_sum",
    "sequence_terms",
    "step_terms",
    "sum_of_rows",
    "token_sum",
    "token_terms",
    "unconditional",
]
