"""In which order the columns of the slot family are fed: committed slots as their groups were finished, then the rest.

Legend: b rows, l canvas, j slots, k steps that are asked about, n = b j.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from dllm_rl.events import Events

_NEVER = torch.iinfo(torch.int32).max


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
    rank = torch.where(joined < steps[..., None], joined, _NEVER)
    order = feed_order(rank.flatten(0, 1), slot_size, events.length).unflatten(0, steps.shape)
    natural = torch.arange(events.length, device=order.device)
    return torch.where((steps < events.end)[..., None], order, natural)


def joined_slots(events: Events, slot_size: int) -> Int[Tensor, "b j"]:
    """The step at which each slot was finished together with all slots that were opened with it, where all was drawn.

    A slot gets its first token in the step that opens it, and no other is opened while one of these is unfinished.
    Forced tokens need no opening: a sampler that writes them says itself when its slots joined.
    """
    num_slots = -(-events.length // slot_size)
    shape = (len(events.end), num_slots)
    place, step = events.row * num_slots + events.column // slot_size, events.step.long()
    is_state = step < events.end[events.row]
    place, step = place[is_state], step[is_state]
    zeros = torch.zeros(shape, dtype=torch.long, device=place.device).flatten()
    opened = (zeros + _NEVER).scatter_reduce(0, place, step, "amin").view(shape)
    last = zeros.scatter_reduce(0, place, step, "amax").view(shape)
    width = (events.length - torch.arange(num_slots, device=place.device) * slot_size).clamp(max=slot_size)
    filled = torch.where(torch.bincount(place, minlength=len(zeros)).view(shape) == width, last, _NEVER)
    is_together = opened[:, :, None] == opened[:, None, :]
    return torch.where(is_together, filled[:, None, :], -1).amax(dim=2)
