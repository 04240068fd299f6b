"""JustGRPO (2601.15165): GRPO on the left-to-right likelihood of a masked model, one view per token.

View t hides every token from t on and scores token t, at the sampler's temperature. The likelihood is exact if the
sampler writes left to right.
Departures: K of the N tokens may be sampled without replacement and weighted N / K. Columns after EOS are not scored,
and each sequence is divided by its own length; the public code scores the whole canvas, divides by its length and
averages over rows whose advantage is not 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Replays, Rollouts, Views
from dllm_rl.registry import register
from objectives import Count, KLName, NonNegative
from objectives.cj_grpo import CJGRPO


@register("objective", "just_grpo")
@dataclass(frozen=True, slots=True, kw_only=True)
class JustGRPO(CJGRPO):
    """GRPO in autoregressive order. num_steps: scored tokens per row, None = all, which costs a forward each."""

    name: ClassVar[str] = "just_grpo"
    paper: ClassVar[str] = "2601.15165"
    level: ClassVar[str] = "token"
    replays: ClassVar[Replays] = Replays.NONE
    version: ClassVar[int] = 3
    families: ClassVar[tuple[str, ...]] = ("autoregressive", "masked", "block")
    requires: ClassVar[tuple[str, ...]] = ()

    beta: NonNegative = 0.0
    kl: KLName = "k3"
    num_steps: Count | None = None

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """For each of the chosen tokens, the canvas with it and all that follows hidden."""
        return process.left_to_right(rollouts, generator, num_tokens=self.num_steps)
