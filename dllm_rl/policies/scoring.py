"""Likelihood terms of views: each distinct input is forwarded once, on all columns that any of its rows scores.

Legend: b rows, d distinct rows, l canvas, k views, n scored positions of all rows, v vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.likelihood.constraint import Constraint
from dllm_rl.likelihood.terms import TokenLogProbs, WholeLogits
from dllm_rl.policies.feed import Feed
from dllm_rl.policies.tiles import TiledLogits
from dllm_rl.records.types import Rollouts, Views

if TYPE_CHECKING:
    from dllm_rl.policies.base import BasePolicy


def view_terms(policy: BasePolicy, rollouts: Rollouts, view: Views) -> Float[Tensor, "b l"]:
    """Return the likelihood terms of one view, alone; 0 where it does not score."""
    score = view.score[0]
    if not score.any():
        return torch.zeros(score.shape, dtype=torch.float32)
    if (constraint := _constraint_of(rollouts)) is not None:
        return _constrained_terms(policy, rollouts, view, constraint)
    row, column = score.nonzero(as_tuple=True)
    targets = rollouts.completion_ids if view.targets is None else view.targets[0]
    terms = view.term(_log_probs(policy, rollouts, view), targets[row, column], view, (row, column))
    return torch.zeros(score.shape, dtype=terms.dtype, device=terms.device).index_put((row, column), terms)


def distinct_inputs(policy: BasePolicy, rollouts: Rollouts, views: Views) -> Int[Tensor, "k b"]:
    """Return the number of each row's input among the distinct ones of its view; -1 where a view scores nothing.

    Under a grammar every row has a number of its own: what is held there is every row's logits.
    """
    numbers = []
    for index in torch.arange(views.num_views).split(1):
        view = views.views(index)
        is_scored = view.score[0].any(dim=1)
        if _constraint_of(rollouts) is not None or not is_scored.any():
            numbers.append(torch.where(is_scored, torch.arange(rollouts.num_rows), -1))
        else:
            numbers.append(policy.view_feed(rollouts, view).shared(is_scored).place)
    return torch.stack(numbers)


def _constraint_of(rollouts: Rollouts) -> Constraint | None:
    return None if rollouts.trajectory is None else rollouts.trajectory.constraint


def _log_probs(policy: BasePolicy, rollouts: Rollouts, view: Views) -> TokenLogProbs:
    """Return log-probabilities of tokens at the view's scored positions, row after row."""
    score = view.score[0]
    feed = policy.view_feed(rollouts, view)
    shared = feed.shared(score.any(dim=1))
    row, column = score.nonzero(as_tuple=True)
    row = shared.place.to(row.device)[row]
    scored = torch.zeros(len(shared.first), score.shape[1], dtype=torch.bool, device=score.device)
    scored[row, column] = True
    columns = scored.any(dim=0).nonzero().squeeze(1)
    read = policy.score(feed.rows(shared.first), columns=columns, reading=view.reading, scored=scored[:, columns])[0]
    place = _numbered(scored)[row, column].to(read.device)
    return _token_log_probs(policy, read, place, temperature=rollouts.temperature if view.at_temperature else 1)


def _token_log_probs(
    policy: BasePolicy, read: Float[Tensor, "m v"] | Float[Tensor, "m d"], place: Int[Tensor, " n"], temperature: float
) -> TokenLogProbs:
    """Log-probabilities of tokens from what `score` gave: logits, or what the head reads.

    Args:
        place: Which of these positions each scored one is.
    """
    if policy.reads_in_tiles:
        return TiledLogits(
            states=read,
            logits=lambda states: _tempered(policy.read_head(states), temperature),
            vocab_size=policy.vocab_size,
            place=place,
        )
    logits = _tempered(read, temperature)
    return WholeLogits(logits=logits, total=logits.logsumexp(dim=-1), place=place)


def cross_entropy(
    policy: BasePolicy, read: Float[Tensor, "1 n v"] | Float[Tensor, "1 n d"], targets: Int[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of targets, from what `score` gave for their positions."""
    if not policy.reads_in_tiles:
        return F.cross_entropy(read[0], targets.to(read.device))
    every = torch.arange(len(targets), device=read.device)
    return -_token_log_probs(policy, read[0], every, 1.0)(targets.to(read.device)).mean()


def _numbered(where: Bool[Tensor, "d l"]) -> Int[Tensor, "d l"]:
    """Return the number of each marked place, counted row after row."""
    return where.flatten().cumsum(dim=0).view_as(where) - 1


def _tempered(logits: Float[Tensor, "..."], temperature: float) -> Float[Tensor, "..."]:
    return logits if temperature == 1 else logits / temperature


def _constrained_terms(
    policy: BasePolicy, rollouts: Rollouts, view: Views, constraint: Constraint
) -> Float[Tensor, "b l"]:
    """Return the terms of draws under a grammar: their distribution is over accepted canvases, not the model's.

    Raises ConfigError where the view does not replay draws.
    """
    if not view.is_replay:
        raise ConfigError(
            "these rollouts were drawn under the grammar, and this objective's views do not score its distribution: "
            "training would follow other probabilities than those of the draws. Use an objective that replays "
            "trajectories (such as cj_grpo) or the autoregressive family, or set decoding.grammar to evaluation."
        )
    feed = Feed.of_view(rollouts, view)
    shared = feed.shared(view.score[0].any(dim=1))
    # The grammar and the record stay where the canvases are, not where the model is.
    logits = _tempered(policy.score(feed.rows(shared.first)).to(view.tokens.device), rollouts.temperature)
    if shared.is_any:
        # Rows that score nothing are given some logits, which nothing reads.
        logits = logits.index_select(0, shared.place.clamp(min=0).to(logits.device))
    terms = policy.process.constrained_terms(logits, rollouts, view, constraint)
    return torch.where(view.score[0], terms.float(), 0.0)
