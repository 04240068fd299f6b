"""The discrete-flow family with a uniform source (2402.04997, 2407.15595; FS-DFM 2509.20624): noise to token over time.

kappa_t = t ** power is the share of clean tokens at time t. The model predicts the clean token at every position.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.constraint import Constraint
from dllm_rl.policies.attention import Full
from dllm_rl.policies.base import BasePolicy, Reading
from dllm_rl.policies.terms import joint_terms, target_log_probs
from dllm_rl.registry import register
from dllm_rl.trajectory import FlowLaw
from dllm_rl.types import Family, Rollouts, Views


@register("policy", "flow")
class FlowPolicy(BasePolicy):
    """Bidirectional and told the time; its likelihood terms are of the flow's own forward process."""

    family: ClassVar[Family] = "flow"

    @property
    def reading(self) -> Reading:
        """Every position reads every other."""
        return Reading(attention=Full(), is_shifted=self.facts.is_shifted)

    def terms(
        self,
        logits: Float[Tensor, "n v"],
        targets: Int[Tensor, " n"],
        views: Views,
        index: int,
        place: tuple[Int[Tensor, " n"], ...],
    ) -> Float[Tensor, " n"]:
        """Transition log-probabilities for trajectories, generalised-KL terms for the ELBO, else log p(target).

        ELBO (uniform source): (1 - e) log p(x_1) + p(x_t) - e with e = [x_t = x_1], never positive.
        Transition x to y: log((1 - q) [y = x] + q p(y)), q = 1 - (1 - kappa') / (1 - kappa), or the law of a rate,
        `rate_log_prob`.
        """
        log_p = target_log_probs(logits, targets)
        seen = views.tokens[index][place]
        if views.kind == "trajectory":
            assert views.time is not None and views.time_next is not None
            if views.flow_law != "exact":
                rate = self.rate(views.flow_law, views.time[index], views.time_next[index])[place[0]]
                return rate_log_prob(log_p, target_log_probs(logits, seen), seen == targets, rate)
            jump = self.jump_probability(views.time[index], views.time_next[index])[place[0]]
            return transition_log_prob(log_p, seen == targets, jump)
        if views.kind == "elbo":
            same = seen == targets
            p_seen = target_log_probs(logits, seen).exp()
            return torch.where(same, p_seen - 1.0, log_p + p_seen)
        return log_p

    def constrained_terms(
        self, logits: Float[Tensor, "b l v"], rollouts: Rollouts, views: Views, index: int, constraint: Constraint
    ) -> Float[Tensor, "b l"]:
        """Plain transitions, but for the last step, which draws the whole canvas from the accepted ones."""
        assert views.time_next is not None and views.targets is not None
        targets = views.targets[index]
        everywhere = torch.ones_like(targets, dtype=torch.bool)
        place = everywhere.nonzero(as_tuple=True)
        plain = self.terms(logits.flatten(0, 1), targets.flatten(), views, index, place).view_as(targets)
        is_last = views.time_next[index] >= 1.0
        if not is_last.any():
            return plain
        joint = joint_terms(constraint, logits, targets, everywhere, everywhere, targets)
        return torch.where(is_last[:, None], joint.float(), plain)

    def jump_probability(self, time: Float[Tensor, " b"], time_next: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Probability that a position is redrawn between two times; exactly 1 for the last step."""
        kappa, kappa_next = time**self.facts.schedule_power, time_next**self.facts.schedule_power
        remaining = ((1 - kappa_next) / (1 - kappa).clamp(min=1e-9)).clamp(0.0, 1.0)
        return torch.where(time_next >= 1.0, torch.ones_like(remaining), 1.0 - remaining)

    def rate(self, law: FlowLaw, time: Float[Tensor, " b"], time_next: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Summed rate A at which a position leaves between two times, per unit of 1 - p(x); inf for the last step.

        euler: h kappa'_t / (1 - kappa_t), the rate at t for the whole step (2407.15595). cumulative: its integral
        log((1 - kappa_t) / (1 - kappa_s)) (FS-DFM, 2509.20624).
        """
        power = self.facts.schedule_power
        kappa, kappa_next = time**power, time_next**power
        if law == "euler":
            found = (time_next - time) * power * time ** (power - 1) / (1 - kappa).clamp(min=1e-9)
        else:
            found = ((1 - kappa).clamp(min=1e-9) / (1 - kappa_next).clamp(min=1e-9)).log()
        return torch.where(time_next >= 1.0, torch.full_like(found, torch.inf), found)


def rate_log_prob(
    log_p: Float[Tensor, "..."],
    log_p_seen: Float[Tensor, "..."],
    is_same: Bool[Tensor, "..."],
    rate: Float[Tensor, "..."],
) -> Float[Tensor, "..."]:
    """log of: stay with exp(-A (1 - p(x))), else move to y != x with p(y) / (1 - p(x)); log p(y) where A is infinite.

    log_p, log_p_seen: of the token after and before the step. Shapes broadcast to log_p's.
    """
    is_last = torch.isinf(rate).expand_as(log_p)
    leave = torch.log1p(-log_p_seen.exp().clamp(max=1 - 1e-7))
    stay = -torch.where(torch.isinf(rate), torch.ones_like(rate), rate) * leave.exp()
    moved = torch.log(-torch.expm1(stay).clamp(max=-1e-12)) + log_p - leave
    return torch.where(is_last, log_p, torch.where(is_same, stay, moved))


def transition_log_prob(
    log_p: Float[Tensor, "..."], is_same: Bool[Tensor, "..."], jump: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """log((1 - q) [y = x] + q p(y)), stable where q is 1 and where y differs from x. Shapes broadcast to log_p's."""
    moved = jump.log() + log_p
    stay = torch.log1p(-jump.clamp(max=1.0)).expand_as(moved)
    both = torch.logaddexp(stay.clamp(min=-1e4), moved)
    return torch.where(is_same & (jump < 1.0), both, moved)
