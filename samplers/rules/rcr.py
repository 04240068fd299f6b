"""Running confidence remasking (RCR, 2508.13148): predict everything, keep what was surest when it was written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from dllm_rl.registry import register
from samplers.loop.context import View, Written
from samplers.rules.base import UnmaskingRule


@register("sampler", "rcr")
@dataclass(frozen=True, slots=True, kw_only=True)
class RunningConfidenceSampler(UnmaskingRule):
    """Fills every masked position each step, then masks the least confident again, so that a growing number stays."""

    name: ClassVar[str] = "rcr"
    paper: ClassVar[str] = "2508.13148"

    def choose(self, view: View) -> Bool[Tensor, "b n"]:
        """All of them."""
        return view.is_open

    def remask(self, written: Written) -> Bool[Tensor, "b l"]:
        """All but the surest, as many as a plain schedule would have written by now."""
        length = int(written.in_block.sum())
        kept = math.ceil(length * written.view.progress[1])
        score = written.log_probs.masked_fill(~written.in_block, torch.inf)
        rank = score.argsort(dim=1, stable=True).argsort(dim=1)
        return rank < length - kept
