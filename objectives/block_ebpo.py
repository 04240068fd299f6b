"""EBPO (LLaDA2.1, 2602.08676): the sequence ratio of a block policy from a few fixed noise levels, all blocks at once.

At level t_n every block hides each of its columns with probability t_n, given the clean blocks before it, and one pass
over [noisy canvas, clean canvas] scores all blocks. The levels are the midpoints of num_levels equal parts of (0, 1),
with weight 1 / (num_levels t_n). So every scored column has expected weight 1, and the sum has the small bias of a
midpoint rule.
Departures: the paper names neither its levels nor their weights, and clips the plain ratio of a sequence; here it is
length-normalised, as a sequence of a hundred columns would leave any band at once. No public code to compare with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from dllm_rl.advantages import AdvantageName
from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Loss, LossInputs, Rollouts, Views
from dllm_rl.registry import register
from objectives import BelowOne, Clip, Count, Method, NonNegative, mean_of_rows, sequence_terms


@register("objective", "block_ebpo")
@dataclass(frozen=True, slots=True, kw_only=True)
class BlockEBPO(Method):
    """ELBO-based Block-level Policy Optimization.

    Attributes:
        num_levels: views, one a noise level.
    """

    name: ClassVar[str] = "block_ebpo"
    paper: ClassVar[str] = "2602.08676"
    level: ClassVar[str] = "sequence"
    families: ClassVar[tuple[str, ...]] = ("block",)
    version: ClassVar[int] = 1

    advantage: AdvantageName = "centred"
    clip_low: BelowOne = 0.2
    clip_high: NonNegative = 0.28
    num_levels: Count = 4

    @property
    def num_views(self) -> int | None:
        """One for each level."""
        return self.num_levels

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """Every block at the same levels, each with draws of its own."""
        level = (torch.arange(self.num_levels, device=rollouts.completion_ids.device) + 0.5) / self.num_levels
        level = level[:, None].expand(-1, rollouts.num_rows)
        hidden = process.random_units(rollouts, level, generator)
        return process.hide_units(rollouts, hidden, 1 / (self.num_levels * level), generator)

    def loss(self, inputs: LossInputs) -> Loss:
        """(1/R) sum_b [-ppo(exp(DB / N_b), A_b) + beta dB^2 / (2 N_b)]."""
        terms = sequence_terms(inputs, Clip(low=self.clip_low, high=self.clip_high), self.beta)
        return Loss(value=mean_of_rows(inputs.rollouts, terms.entries), metrics=terms.metrics)
