"""How a position of the flow family moves between two times (2402.04997, 2407.15595; FS-DFM 2509.20624).

The share of clean tokens at time t is kappa_t = t ** power. Shapes broadcast: times to tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dllm_rl.likelihood.terms import LogProbs

if TYPE_CHECKING:
    from dllm_rl.records.types import Views


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """Base of the transitions. A transition is also the likelihood term of the views that replay it.

    Attributes:
        power: Of the schedule.
    """

    # Whether a term is the log-probability of its target; a transition's is that of a move.
    is_log_prob: ClassVar[bool] = False
    # Whether a position that leaves its token before the last step takes another one.
    leaves_token: ClassVar[bool] = False

    power: float = 1.0

    def leaving(
        self, log_p: LogProbs, before: Int[Tensor, "..."], time: Float[Tensor, "..."], time_next: Float[Tensor, "..."]
    ) -> Float[Tensor, "..."]:
        """Return the probability that a position is redrawn; 1 in the last step."""
        raise NotImplementedError

    def log_prob(
        self,
        log_p: LogProbs,
        before: Int[Tensor, "..."],
        after: Int[Tensor, "..."],
        time: Float[Tensor, "..."],
        time_next: Float[Tensor, "..."],
    ) -> Float[Tensor, "..."]:
        """Return the log-probability of what became of each position."""
        raise NotImplementedError

    def __call__(
        self, log_probs: LogProbs, targets: Int[Tensor, " n"], view: Views, place: tuple[Tensor, Tensor]
    ) -> Float[Tensor, " n"]:
        """Return the log-probabilities of the recorded transitions."""
        assert view.time is not None and view.time_next is not None
        time, time_next = view.time[0][place[0]], view.time_next[0][place[0]]
        return self.log_prob(log_probs, view.tokens[0][place], targets, time, time_next)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactJump(Transition):
    """The exact jump of the mixture path: a position is redrawn with q = 1 - (1 - kappa') / (1 - kappa).

    It may get the token it had. The transition x to y has probability (1 - q) [y = x] + q p(y).
    """

    def leaving(
        self, log_p: LogProbs, before: Int[Tensor, "..."], time: Float[Tensor, "..."], time_next: Float[Tensor, "..."]
    ) -> Float[Tensor, "..."]:
        """Return q, which depends on no token."""
        return self.jump_probability(time, time_next)

    def log_prob(
        self,
        log_p: LogProbs,
        before: Int[Tensor, "..."],
        after: Int[Tensor, "..."],
        time: Float[Tensor, "..."],
        time_next: Float[Tensor, "..."],
    ) -> Float[Tensor, "..."]:
        """Return log((1 - q) [y = x] + q p(y))."""
        return transition_log_prob(log_p(after), before == after, self.jump_probability(time, time_next))

    def jump_probability(self, time: Float[Tensor, "..."], time_next: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the probability that a position is redrawn between two times; exactly 1 for the last step."""
        kappa, kappa_next = time**self.power, time_next**self.power
        remaining = ((1 - kappa_next) / (1 - kappa).clamp(min=1e-9)).clamp(0.0, 1.0)
        return torch.where(time_next >= 1.0, torch.ones_like(remaining), 1.0 - remaining)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateJump(Transition):
    """A position leaves token x at the summed rate A (1 - p(x)) of a step, and takes a different one."""

    leaves_token: ClassVar[bool] = True

    def leaving(
        self, log_p: LogProbs, before: Int[Tensor, "..."], time: Float[Tensor, "..."], time_next: Float[Tensor, "..."]
    ) -> Float[Tensor, "..."]:
        """Return 1 - exp(-A (1 - p(x))); 1 in the last step, whose rate is infinite."""
        rate, seen = self.rate(time, time_next), log_p(before)
        leave = -torch.expm1(-rate * (1 - seen.exp()))
        return torch.where(torch.isinf(rate), torch.ones_like(seen), leave)

    def log_prob(
        self,
        log_p: LogProbs,
        before: Int[Tensor, "..."],
        after: Int[Tensor, "..."],
        time: Float[Tensor, "..."],
        time_next: Float[Tensor, "..."],
    ) -> Float[Tensor, "..."]:
        """Return the log-probability of staying, or of leaving for `after`."""
        return rate_log_prob(log_p(after), log_p(before), before == after, self.rate(time, time_next))

    def rate(self, time: Float[Tensor, "..."], time_next: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return A between two times, per unit of 1 - p(x); inf for the last step."""
        power = self.power
        found = self._rate(time, time_next, time**power, time_next**power)
        return torch.where(time_next >= 1.0, torch.full_like(found, torch.inf), found)

    def _rate(
        self,
        time: Float[Tensor, "..."],
        time_next: Float[Tensor, "..."],
        kappa: Float[Tensor, "..."],
        kappa_next: Float[Tensor, "..."],
    ) -> Float[Tensor, "..."]:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class EulerJump(RateJump):
    """The rate at the start of a step, held for the whole of it (2407.15595): h kappa'_t / (1 - kappa_t)."""

    def _rate(
        self,
        time: Float[Tensor, "..."],
        time_next: Float[Tensor, "..."],
        kappa: Float[Tensor, "..."],
        kappa_next: Float[Tensor, "..."],
    ) -> Float[Tensor, "..."]:
        power = self.power
        return (time_next - time) * power * time ** (power - 1) / (1 - kappa).clamp(min=1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class CumulativeJump(RateJump):
    """The rate's integral over a step (FS-DFM, 2509.20624): log((1 - kappa_t) / (1 - kappa_s))."""

    def _rate(
        self,
        time: Float[Tensor, "..."],
        time_next: Float[Tensor, "..."],
        kappa: Float[Tensor, "..."],
        kappa_next: Float[Tensor, "..."],
    ) -> Float[Tensor, "..."]:
        return ((1 - kappa).clamp(min=1e-9) / (1 - kappa_next).clamp(min=1e-9)).log()


def rate_log_prob(
    log_p: Float[Tensor, "..."],
    log_p_before: Float[Tensor, "..."],
    is_same: Tensor,
    rate: Float[Tensor, "..."],
) -> Float[Tensor, "..."]:
    """Return log of: stay with exp(-A (1 - p(x))), else move to y != x with p(y) / (1 - p(x)).

    Log p(y) where A is infinite.

    Args:
        log_p: Of the token after the step.
        log_p_before: Of the token before it.
    """
    is_last = torch.isinf(rate).expand_as(log_p)
    leave = torch.log1p(-log_p_before.exp().clamp(max=1 - 1e-7))
    stay = -torch.where(torch.isinf(rate), torch.ones_like(rate), rate) * leave.exp()
    moved = torch.log(-torch.expm1(stay).clamp(max=-1e-12)) + log_p - leave
    return torch.where(is_last, log_p, torch.where(is_same, stay, moved))


def transition_log_prob(
    log_p: Float[Tensor, "..."], is_same: Tensor, jump: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """Return log((1 - q) [y = x] + q p(y)), stable where q is 1 and where y differs from x."""
    moved = jump.log() + log_p
    stay = torch.log1p(-jump.clamp(max=1.0)).expand_as(moved)
    both = torch.logaddexp(stay.clamp(min=-1e4), moved)
    return torch.where(is_same & (jump < 1.0), both, moved)
