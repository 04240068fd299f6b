"""In which order the columns of the slot family are fed: committed slots as their groups were finished, then the rest.

Legend: b rows, l canvas, j slots, k steps that are asked about, n = b j.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from dllm_rl.events import Events

# The rank of a slot that did not join.
NEVER = torch.iinfo(torch.int32).max


def feed_order(slot_rank: Int[Tensor, "b j"], slot_size: int, length: int) -> Int[Tensor, "b l"]:
    """Columns in feed order, slots sorted by rank (stable, so equal ranks keep the natural order)."""
    slots = slot_rank.argsort(dim=1, stable=True)
    columns = slots[:, :, None] * slot_size + torch.arange(slot_size, device=slots.device)
    return columns.flatten(1)[:, :length]


def recorded_orders(
    events: Events, joined: Int[Tensor, "b j"], steps: Int[Tensor, "k b"], slot_size: int
) -> Int[Tensor, "k b l"]:
    """The feed order that each row read before these steps; the natural one from its end on.

    joined: the step at which each slot joined the committed ones; later than all steps where it never did.
    """
    rank = torch.where(joined < steps[..., None], joined, NEVER)
    order = feed_order(rank.flatten(0, 1), slot_size, events.length).unflatten(0, steps.shape)
    natural = torch.arange(events.length, device=order.device)
    return torch.where((steps < events.end)[..., None], order, natural)
