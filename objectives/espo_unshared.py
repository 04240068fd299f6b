"""The negative control of every grid: ESPO whose new and old policy are scored on *different* masks.

Its ratio differs from 1 at the weights that sampled, by estimator noise alone; the diagnosis must raise that alarm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Loss, LossInputs, Rollouts, Views
from dllm_rl.registry import register
from objectives import (
    BelowOne,
    Clip,
    Count,
    Method,
    NonNegative,
    NoPenalty,
    clipped_terms,
    lengths,
    mean_of_rows,
    scored,
    sequence_sum,
)


@register("objective", "espo_unshared")
@dataclass(frozen=True, slots=True, kw_only=True)
class ESPOUnshared(Method):
    """ESPO without common random numbers and without penalty.

    Attributes:
        num_draws, antithetic: Of each of the two estimates.
    """

    name: ClassVar[str] = "espo_unshared"
    paper: ClassVar[str] = "2512.03759"
    level: ClassVar[str] = "sequence"
    families: ClassVar[tuple[str, ...]] = ("masked", "block", "slot", "flow")
    exceptions: ClassVar[dict[str, str]] = {
        "on_policy": "new and old read different masks, so the ratio is not 1: that is what the control is for"
    }

    beta: NoPenalty = 0.0
    clip_low: BelowOne = 0.2
    clip_high: NonNegative = 0.2
    num_draws: Count = 2
    antithetic: bool = True

    @property
    def num_views(self) -> int | None:
        """Those of two estimates."""
        return 2 * self.num_draws * (2 if self.antithetic else 1)

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """Two independent sets of ELBO views: the first half is for the new scores, the second for the old ones."""
        options = {"num_draws": self.num_draws, "antithetic": self.antithetic}
        first = process.elbo(rollouts, generator, **options)
        second = process.elbo(rollouts, generator, **options)
        return _stack(first, second)

    def loss(self, inputs: LossInputs) -> Loss:
        """(1/R) sum_b [-ppo(exp((B(new) - B'(old)) / N_b), A_b)], B and B' on independent masks."""
        rollouts, views = inputs.rollouts, inputs.views
        assert inputs.old is not None
        half = torch.arange(views.num_views // 2)
        first, second = views.views(half), views.views(half + len(half))
        numerator = sequence_sum(first, scored(first, inputs.new[: len(half)]))
        denominator = sequence_sum(second, scored(second, inputs.old[len(half) :])).detach()
        clip = Clip(low=self.clip_low, high=self.clip_high)
        terms = clipped_terms((numerator - denominator) / lengths(rollouts), inputs.advantages, rollouts.valid, clip)
        return Loss(value=mean_of_rows(rollouts, terms.entries), metrics=terms.metrics)


def _stack(first: Views, second: Views) -> Views:
    def both(name: str) -> Tensor | None:
        value = getattr(first, name)
        return None if value is None else torch.cat([value, getattr(second, name)])

    return replace(first, **{name: both(name) for name in ("tokens", "score", "weight", "time", "order")})
