"""When slots joined the feed order, told from the events alone, for records that no sampler made.

Legend: b rows, j slots.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from dllm_rl.events import NEVER_JOINED, Events


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
    opened = (zeros + NEVER_JOINED).scatter_reduce(0, place, step, "amin").view(shape)
    last = zeros.scatter_reduce(0, place, step, "amax").view(shape)
    width = (events.length - torch.arange(num_slots, device=place.device) * slot_size).clamp(max=slot_size)
    filled = torch.where(torch.bincount(place, minlength=len(zeros)).view(shape) == width, last, NEVER_JOINED)
    is_together = opened[:, :, None] == opened[:, None, :]
    return torch.where(is_together, filled[:, None, :], -1).amax(dim=2)
