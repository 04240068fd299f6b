"""Revising what was written in doubt: a token is taken back once, when what stands around it is known (2604.18738).

A threshold writes several columns a step, and its best one in any case, sure or not. Here tokens whose probability was
below `edit_threshold` when they were drawn become masks again as soon as the row has no other masks, and are drawn anew
with all others in sight. That is token to mask, not token to token: a masked model has no distribution at columns that
are written. The paper's score of suspicion is known from its title and notes only; here it is the probability of the
draw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.registry import register
from samplers.loop.context import RemaskContext
from samplers.rules.threshold import ThresholdSampler


@register("sampler", "revise")
@dataclass(frozen=True, slots=True, kw_only=True)
class ReviseSampler(ThresholdSampler):
    """What `threshold` writes, and in the end once more what it wrote below `edit_threshold`.

    Attributes:
        edit_threshold: Probability of a draw below which it is revised.
        rounds: Times that a block may be revised.
    """

    name: ClassVar[str] = "revise"
    paper: ClassVar[str] = "2604.18738"
    version: ClassVar[int] = 2
    edit_threshold: float = 0.7
    rounds: int = 1

    def steps_of(self, blocks: list[int]) -> list[int]:
        """Without a bound of the user's, enough to write each block column by column and again in every round.

        A round can begin in all but the last eighth of a block's steps.
        """
        if self.num_steps is not None:
            return ThresholdSampler.steps_of(self, blocks)
        return [max((self.rounds + 1) * size, math.ceil(self.rounds * size * 8 / 7)) for size in blocks]

    def remask(self, context: RemaskContext) -> Bool[Tensor, "b l"]:
        """The doubtful tokens of rows that have nothing left to write, as long as they have rounds."""
        rows, memory = context.step.rows, context.step.memory
        if context.step.step == 0:
            memory["rounds"] = torch.full((int(rows.max()) + 1,), self.rounds)
        is_doubtful = context.in_block & (context.log_probs < math.log(self.edit_threshold))
        again = is_doubtful & (context.is_complete & (memory["rounds"][rows] > 0))[:, None]
        memory["rounds"][rows] -= again.any(dim=1).long()
        return again

    def __post_init__(self) -> None:
        ThresholdSampler.__post_init__(self)
        if not 0 < self.edit_threshold <= 1:
            raise ConfigError(f"edit_threshold={self.edit_threshold}: expected a probability above 0, at most 1")
        if not isinstance(self.rounds, int) or self.rounds < 1:
            raise ConfigError(f"rounds={self.rounds}: expected an integer of at least 1")
