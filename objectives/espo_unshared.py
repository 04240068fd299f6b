"""The negative control of every grid: ESPO whose new and old policy are scored on *different* masks.

Its ratio differs from 1 at the weights that sampled, by estimator noise alone; the diagnosis must raise that alarm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.process import ForwardProcess
from dllm_rl.registry import register
from dllm_rl.types import Family, Loss, Rollouts, Views
from objectives._method import BelowOne, Count, Method, NonNegative, NoPenalty
from objectives._surrogate import lengths, mean_of_rows, scored, sequence_sum
from objectives._terms import Clip, clipped_terms


@register("objective", "espo_unshared")
@dataclass(frozen=True, slots=True, kw_only=True)
class ESPOUnshared(Method):
    """ESPO without common random numbers and without penalty. num_draws, antithetic: of each of the two estimates."""

    name: ClassVar[str] = "espo_unshared"
    paper: ClassVar[str] = "2512.03759"
    level: ClassVar[str] = "sequence"
    families: ClassVar[tuple[Family, ...]] = ("masked", "block", "slot", "flow")
    exceptions: ClassVar[dict[str, str]] = {
        "on_policy": "new and old read different masks, so the ratio is not 1: that is what the control is for"
    }

    beta: NoPenalty = 0.0
    clip_low: BelowOne = 0.2
    clip_high: NonNegative = 0.2
    num_draws: Count = 2
    antithetic: bool = True

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """Two independent sets of ELBO views: the first half is for the new scores, the second for the old ones."""
        options = {"num_draws": self.num_draws, "antithetic": self.antithetic}
        first = process.elbo(rollouts, generator, **options)
        second = process.elbo(rollouts, generator, **options)
        return _stack(first, second)

    def loss(
        self,
        rollouts: Rollouts,
        views: Views,
        new: Float[Tensor, "k b l"],
        old: Float[Tensor, "k b l"],
        ref: Float[Tensor, "k b l"] | None,
        advantages: Float[Tensor, " b"],
    ) -> Loss:
        """(1/R) sum_b [-ppo(exp((B(new) - B'(old)) / N_b), A_b)], B and B' on independent masks."""
        half = torch.arange(views.num_views // 2)
        first, second = views.views(half), views.views(half + len(half))
        numerator = sequence_sum(first, scored(first, new[: len(half)]))
        denominator = sequence_sum(second, scored(second, old[len(half) :])).detach()
        clip = Clip(low=self.clip_low, high=self.clip_high)
        mean_ratio = (numerator - denominator) / lengths(rollouts)
        terms = clipped_terms(mean_ratio, advantages, rollouts.valid, clip, None)
        return Loss(value=mean_of_rows(rollouts, terms.entries), metrics=terms.metrics)


def _stack(first: Views, second: Views) -> Views:
    def both(name: str) -> Tensor | None:
        value = getattr(first, name)
        return None if value is None else torch.cat([value, getattr(second, name)])

    return replace(first, **{name: both(name) for name in ("tokens", "score", "weight", "time", "order")})
