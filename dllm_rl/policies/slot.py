"""The slot family (ReFusion 2512.13586): causal attention over a feed order of slots, the committed ones first.

Tokens keep their true positions. Logits at MASK are unshifted (the draft law, which samplers draw from and objectives
score); inside clean slots the warm start also learns the shifted next-token law.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm_rl.policies.base import Attention, BasePolicy
from dllm_rl.registry import register
from dllm_rl.types import Family


@register("policy", "slot")
class SlotPolicy(BasePolicy):
    """Like masked, but each slot reads only the prompt and what stands before it in the feed order."""

    family: ClassVar[Family] = "slot"
    attention: ClassVar[Attention] = "causal"


def feed_order(slot_rank: Int[Tensor, "b j"], slot_size: int, length: int) -> Int[Tensor, "b l"]:
    """Columns in feed order, slots sorted by rank (stable, so equal ranks keep the natural order)."""
    slots = slot_rank.argsort(dim=1, stable=True)
    columns = slots[:, :, None] * slot_size + torch.arange(slot_size, device=slots.device)
    return columns.flatten(1)[:, :length]


def hidden_slots(is_hidden: Bool[Tensor, "b l"], slot_size: int) -> Bool[Tensor, "b j"]:
    """Which slots have any hidden column."""
    return is_hidden.unflatten(1, (-1, slot_size)).any(dim=2)
