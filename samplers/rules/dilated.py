"""Dilated groups (DUS, 2506.19037): columns far from one another first, then those between; the steps are known before.

Columns that are written in one step are drawn independently, and near ones depend on one another most. So a step
writes every stride-th column of the block that is still open, and the stride is divided by `base` from step to step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.registry import register
from samplers.loop.context import StepContext
from samplers.loop.denoise import spread
from samplers.rules.base import UnmaskingRule


@register("sampler", "dilated")
@dataclass(frozen=True, slots=True, kw_only=True)
class DilatedSampler(UnmaskingRule):
    """Writes the columns at multiples of a stride that shrinks; the last step writes what is left.

    A block of n columns takes about log(n) / log(base) + 1 steps, or `num_steps` where these are fewer.

    Attributes:
        base: What the stride is divided by.
    """

    name: ClassVar[str] = "dilated"
    paper: ClassVar[str] = "2506.19037"
    num_steps: int | None = None
    base: int = 2

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """The columns whose distance from the block's first is a multiple of the step's stride."""
        in_block = context.block_step.in_block
        first = int(in_block.long().argmax())
        return (context.columns - first) % strides(int(in_block.sum()), self.base)[context.step] == 0

    def steps_of(self, blocks: list[int]) -> list[int]:
        """One step a stride, at most `num_steps` over all blocks."""
        steps = [len(strides(columns, self.base)) for columns in blocks]
        if self.num_steps is None:
            return steps
        return [min(pair) for pair in zip(steps, spread(self.num_steps, len(blocks)), strict=True)]

    def __post_init__(self) -> None:
        UnmaskingRule.__post_init__(self)
        if not isinstance(self.base, int) or self.base < 2:
            raise ConfigError(f"base={self.base}: expected an integer of at least 2")


def strides(columns: int, base: int) -> list[int]:
    """The strides of a block, from `columns` over the base down to 1."""
    found = [max(1, columns // base)]
    while found[-1] > 1:
        found.append(max(1, found[-1] // base))
    return found
