"""Likelihood terms from a model's predictions.

Legend: b rows, l canvas, n scored positions of all rows, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.likelihood.constraint import Constraint

if TYPE_CHECKING:
    from dllm_rl.records.types import Views


# Log-probabilities of tokens under the model's prediction, one token a position.
LogProbs = Callable[[Int[Tensor, "..."]], Float[Tensor, "..."]]


class TokenLogProbs(Protocol):
    """Log-probabilities of tokens at the scored positions of a view."""

    def __call__(self, tokens: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Return the log-probabilities of one token a position."""
        ...

    def log_odds(self, scale: float) -> Float[Tensor, " n"]:
        """Return the log-odds of the most likely token, of the logits times `scale`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeLogits(TokenLogProbs):
    """They are read from logits that all exist at once.

    Attributes:
        logits: Of the distinct inputs' scored positions.
        total: Their logsumexp.
        place: Which of them each scored position has.
    """

    logits: Float[Tensor, "m v"]
    total: Float[Tensor, " m"]
    place: Int[Tensor, " n"]

    def __call__(self, tokens: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Return the log-probabilities of one token a position."""
        # Only what is scored leaves the model's device.
        return (self.logits[self.place, tokens.to(self.logits.device)] - self.total[self.place]).to(tokens.device)

    def log_odds(self, scale: float) -> Float[Tensor, " n"]:
        """Return the log-odds of the most likely token, of the logits times `scale`."""
        return top_log_odds(self.logits * scale)[self.place]


def top_log_odds(logits: Float[Tensor, "m v"]) -> Float[Tensor, " m"]:
    """Return the log-odds of the most likely token of each position."""
    top, index = logits.max(dim=-1, keepdim=True)
    others = logits.scatter(-1, index, -torch.inf).logsumexp(dim=-1)
    return top.squeeze(-1) - others


class Term(Protocol):
    """What the likelihood of a target is, given the prediction at its position."""

    # Whether a term is the log-probability of its target.
    is_log_prob: ClassVar[bool]

    def __call__(
        self, log_probs: LogProbs, targets: Int[Tensor, " n"], view: Views, place: tuple[Tensor, Tensor]
    ) -> Float[Tensor, " n"]:
        """Return the terms of one view's scored positions.

        Args:
            log_probs: Of tokens at these positions.
            view: The view, alone.
            place: Row and column of each position.
        """
        ...


@dataclass(frozen=True, slots=True)
class LogProb:
    """The log-probability of the target."""

    is_log_prob: ClassVar[bool] = True

    def __call__(
        self, log_probs: LogProbs, targets: Int[Tensor, " n"], view: Views, place: tuple[Tensor, Tensor]
    ) -> Float[Tensor, " n"]:
        """Return the log-probabilities of the targets."""
        return log_probs(targets)


LOG_PROB = LogProb()


def target_log_probs(logits: Float[Tensor, "n v"], targets: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return the log softmax at the targets."""
    return logits.gather(-1, targets[..., None]).squeeze(-1) - logits.logsumexp(dim=-1)


def joint_terms(
    constraint: Constraint,
    logits: Float[Tensor, "b l v"],
    canvas: Int[Tensor, "b l"],
    is_masked: Bool[Tensor, "b l"],
    chosen: Bool[Tensor, "b l"],
    targets: Int[Tensor, "b l"],
    *,
    unscored_from: Int[Tensor, " b"] | None = None,
) -> Float[Tensor, "b l"]:
    """Return log-probabilities of the chosen positions' targets among accepted canvases; 0 elsewhere.

    Args:
        unscored_from: First column that was not scored, for each row. Default: all were.
    """
    columns = torch.arange(canvas.shape[1]).expand_as(canvas)
    scores = constraint.scores(constraint.open_scores(logits), columns, canvas, is_masked, unscored_from)
    beta = constraint.backward(scores, unscored_from=unscored_from)
    weight = logits.gather(-1, targets[..., None]).squeeze(-1)
    chosen = chosen & is_masked
    return constraint.set_log_probs(scores, beta, chosen, constraint.labels_of(targets), weight)
