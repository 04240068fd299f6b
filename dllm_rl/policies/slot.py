"""The slot family (ReFusion 2512.13586): causal attention over a feed order of slots, the committed ones first.

Tokens keep their true positions. Logits at MASK are unshifted (the draft law, which samplers draw from and objectives
score); inside clean slots the warm start also learns the shifted next-token law.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import DynamicCache

from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.terms import Attention, attention_mask
from dllm_rl.registry import register
from dllm_rl.types import Family, Prompts


@register("policy", "slot")
class SlotPolicy(BasePolicy):
    """Like masked, but each slot reads only the prompt and what stands before it in the feed order."""

    family: ClassVar[Family] = "slot"
    attention: ClassVar[Attention] = "causal"

    def read_prompts(self, prompts: Prompts) -> Any:
        """Keys and values of the prompts: under causal attention they do not depend on the canvas, so this is exact."""
        width = prompts.ids.shape[1]
        inputs: dict[str, Tensor] = {
            "input_ids": prompts.ids,
            "attention_mask": attention_mask(prompts.mask, self.attention),
            "position_ids": (prompts.mask.long().cumsum(dim=1) - 1).clamp(min=0),
            "logits_to_keep": torch.tensor([width - 1]),
        }
        if getattr(self.model.config, "num_columns", 0):
            inputs["column_ids"] = torch.zeros_like(prompts.ids)
        cache = DynamicCache()
        moved = {name: value.to(self.device) for name, value in inputs.items()}
        self.model(**moved, **self.kept(cache))
        return cache


def hidden_slots(is_hidden: Bool[Tensor, "b l"], slot_size: int) -> Bool[Tensor, "b j"]:
    """Which slots have any hidden column."""
    return is_hidden.unflatten(1, (-1, slot_size)).any(dim=2)
