"""The slot family (ReFusion 2512.13586): causal attention over a feed order of slots, the committed ones first.

Tokens keep their true positions. Logits at MASK are unshifted (the draft law, which samplers draw from and objectives
score); inside clean slots the warm start also learns the shifted next-token law.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from transformers import DynamicCache

from dllm_rl.policies.attention import Causal
from dllm_rl.policies.base import BasePolicy, Reading
from dllm_rl.policies.feed import prompt_tokens
from dllm_rl.registry import register
from dllm_rl.types import Family, Prompts


@register("policy", "slot")
class SlotPolicy(BasePolicy):
    """Like masked, but each slot reads only the prompt and what stands before it in the feed order."""

    family: ClassVar[Family] = "slot"

    @property
    def reading(self) -> Reading:
        """Every position reads those fed before it."""
        return Reading(attention=Causal(), is_shifted=self.facts.is_shifted)

    def read_prompts(self, prompts: Prompts) -> Any:
        """Return keys and values of the prompts, which under causal attention do not depend on the canvas."""
        cache = DynamicCache()
        last = torch.tensor([prompts.ids.shape[1] - 1])
        self.forward(prompt_tokens(prompts, self.reading.attention), last, cache=cache)
        return cache
