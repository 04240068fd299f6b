"""An order of unmasking: from both ends of the canvas to its middle."""

from dataclasses import dataclass
from typing import ClassVar

from dllm_rl.registry import register
from samplers import StepContext, UnmaskingRule


@register("sampler", "inwards")
@dataclass(frozen=True, slots=True, kw_only=True)
class InwardsSampler(UnmaskingRule):
    """Unmasks the columns that are farthest from the middle of the open ones."""

    name: ClassVar[str] = "inwards"
    paper: ClassVar[str] = ""
    version: ClassVar[int] = 1

    def choose(self, context: StepContext):
        middle = context.block_step.in_block.nonzero().float().mean()
        return context.best((context.columns - middle).abs(), context.quota)
