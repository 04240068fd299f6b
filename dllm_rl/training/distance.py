"""How far the policy has moved from the one that sampled, by which inner updates on a batch may end early.

The distance is measured on the inner step's own forward pass, before its update, so it costs nothing: where it passes a
target, that update and all later ones on the batch are left out. Terms are the view scores themselves: for exact and
trajectory views they are log-probabilities of draws, for other views of a surrogate, and so is the distance.

Legend: k views, b rows, l canvas.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.records.types import Views


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """Mean abs(log new/old) per scored term, and KL(old, new) estimated by k3 on samples of old (never negative)."""

    log_ratio: float
    kl: float


class Travelled:
    """Sums the distance over micro-batches. `total` hands the sums out for a reduction over ranks."""

    def __init__(self) -> None:
        self.total = torch.zeros(3, dtype=torch.float64)

    @torch.no_grad()
    def add(self, views: Views, new: Float[Tensor, "k b l"], old: Float[Tensor, "k b l"]) -> None:
        """Count the scored terms of a micro-batch. What overflows is infinite, and so beyond every target."""
        score = views.score.to(new.device)
        d = (new - old)[score].double()
        sums = torch.stack([d.abs().sum(), (d.expm1() - d).sum(), d.new_tensor(float(d.numel()))])
        self.total += sums.cpu()

    def distance(self, total: Float[Tensor, " 3"] | None = None) -> Distance:
        """The means; of `total` where the sums of all ranks are given. 0 where nothing was scored."""
        size, kl, count = (self.total if total is None else total).tolist()
        if count == 0:
            return Distance(log_ratio=0.0, kl=0.0)
        return Distance(log_ratio=size / count, kl=kl / count)
