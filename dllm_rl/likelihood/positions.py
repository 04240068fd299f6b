"""Which open positions a denoising step writes, where that is drawn with probabilities of the policy's.

Most rules choose positions as a step function of the policy, or without it: then the draws of tokens alone have the
gradient of the expected reward. Where positions are drawn with probabilities that the policy moves, their
log-probabilities belong to it, too (2607.15200).

Legend: n scored positions of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.likelihood.terms import LogProbs, TokenLogProbs

if TYPE_CHECKING:
    from dllm_rl.records.types import Views

# In a `Decision` these stand in place of a token. STAYED: the step left the position open. UNSCORED: the step wrote it,
# but its token is not scored.
STAYED, UNSCORED = -1, -2


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionLaw:
    """A step writes the most certain open position, and each other one on its own with a probability.

    The probability is sigmoid((o - threshold) / spread), where o are the log-odds of the position's most likely token
    at temperature 1.

    Attributes:
        threshold: Log-odds at which it is one half.
        spread: Of the log-odds; the smaller, the nearer to a sharp threshold.
        block_length: Columns of a block, of which a step writes in one.
    """

    threshold: float
    spread: float
    block_length: int

    def logit(self, log_odds: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the log-odds of being written."""
        return (log_odds - self.threshold) / self.spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What became of an open position: the log-probability of writing it or not, and of the token.

    Targets are tokens, STAYED or UNSCORED.

    Attributes:
        temperature: At which tokens were drawn; positions are drawn by log-odds at temperature 1.
    """

    is_log_prob: ClassVar[bool] = False

    law: PositionLaw
    temperature: float

    def __call__(
        self, log_probs: LogProbs, targets: Int[Tensor, " n"], view: Views, place: tuple[Tensor, Tensor]
    ) -> Float[Tensor, " n"]:
        """Return one log-probability a position; that of the most certain one of a row is of its token alone."""
        log_odds = cast("TokenLogProbs", log_probs).log_odds(self.temperature).to(targets.device)
        is_best = _first_largest(log_odds.detach(), place[0])
        logit = self.law.logit(log_odds)
        is_written = targets != STAYED
        decided = F.logsigmoid(torch.where(is_written, logit, -logit))
        token = torch.where(targets >= 0, log_probs(targets.clamp(min=0)), 0.0)
        return token + torch.where(is_best, 0.0, decided)


def _first_largest(values: Float[Tensor, " n"], row: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Return the first of the largest values of each row; rows stand one after another."""
    if not len(values):
        return torch.zeros(0, dtype=torch.bool, device=values.device)
    size = int(row.max()) + 1
    largest = torch.full((size,), -torch.inf, dtype=values.dtype, device=values.device)
    largest = largest.scatter_reduce(0, row, values, "amax")
    number = torch.arange(len(values), device=values.device)
    first = torch.full((size,), len(values), dtype=torch.long, device=values.device)
    first = first.scatter_reduce(0, row, torch.where(values == largest[row], number, len(values)), "amin")
    return number == first[row]
