"""ReMDM (2503.00307): the masked posterior with a chance of remasking tokens, so that mistakes can be undone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Bool
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.registry import register
from samplers.config import check_number
from samplers.loop.context import RemaskContext, StepContext
from samplers.loop.sampling import ORDER
from samplers.rules.base import UnmaskingRule

Sigma = Literal["cap", "rescale", "confidence"]


@register("sampler", "remdm")
@dataclass(frozen=True, slots=True, kw_only=True)
class ReMDMSampler(UnmaskingRule):
    """alpha, the share of written tokens, rises linearly; each written token is remasked with probability sigma.

    Attributes:
        schedule: How sigma follows from eta and its largest value (1 - alpha_s) / alpha_t. `cap`: min(eta, largest).
            `rescale`: eta * largest. `confidence`: the largest, shared out by softmax over -p of each token when it was
            written.
        eta: Bound of sigma under `cap`, factor under `rescale`; `confidence` does not use it.
    """

    name: ClassVar[str] = "remdm"
    paper: ClassVar[str] = "2503.00307"
    schedule: Sigma = "cap"
    eta: float = 0.05

    def __post_init__(self) -> None:
        UnmaskingRule.__post_init__(self)
        if self.schedule not in get_args(Sigma):
            raise ConfigError(f"schedule={self.schedule!r}: give one of {', '.join(get_args(Sigma))}")
        check_number("eta", self.eta, least=0, largest=1)

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """Each masked position is written with probability (alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t)."""
        now, after = context.progress
        probability = (after - (1 - self._mean_sigma(now, after)) * now) / (1 - now)
        return context.is_open & (context.noise(ORDER) < probability)

    def remask(self, context: RemaskContext) -> Bool[Tensor, "b l"]:
        """Each position that was written before this step is masked with probability sigma."""
        now, after = context.step.progress
        sigma = torch.full_like(context.log_probs, self._mean_sigma(now, after))
        if self.schedule == "confidence":
            score = (-context.log_probs.exp()).masked_fill(~context.was_visible, -torch.inf)
            sigma = torch.nan_to_num(score.softmax(dim=1)) * _largest(now, after)
        return context.was_visible & (context.noise < sigma)

    def _mean_sigma(self, now: float, after: float) -> float:
        if self.schedule == "cap":
            return min(self.eta, _largest(now, after))
        return self.eta * _largest(now, after) if self.schedule == "rescale" else 0.0


def _largest(now: float, after: float) -> float:
    return 1.0 if now == 0 else min(1.0, (1 - after) / now)
