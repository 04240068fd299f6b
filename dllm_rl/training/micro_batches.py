"""Rows of one call of the loss: equal inputs meet, so that each is forwarded once, and what is held stays bounded.

Legend: k views, n rows, m rows of a micro-batch.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor


def micro_batches(
    inputs: Int[Tensor, "k n"], group_ids: Int[Tensor, " n"], limit: int, *, holds_all_views: bool
) -> list[Int[Tensor, " m"]]:
    """Return the rows in parts of at most `limit` distinct inputs, or of those of one row where that alone has more.

    Args:
        inputs: Number of each row's input among the distinct ones of its view; -1 where a view scores nothing.
        holds_all_views: Whether activations of all views are held at a time, or those of one view after another.
    """
    numbers, groups = inputs.T.tolist(), group_ids.tolist()
    count = sum if holds_all_views else max
    batches: list[list[int]] = []
    held: list[set[int]] = []
    for row in sorted(range(len(numbers)), key=lambda row: (groups[row], numbers[row])):
        own = [{number} - {-1} for number in numbers[row]]
        joined = [one | other for one, other in zip(held, own, strict=True)] if batches else own
        if not batches or (joined != held and count(map(len, joined)) > limit):
            batches.append([])
            joined = own
        batches[-1].append(row)
        held = joined
    return [torch.tensor(rows) for rows in batches]


def num_distinct(inputs: Int[Tensor, "k n"]) -> int:
    """Return the number of distinct inputs, summed over views."""
    return sum(len(set(numbers) - {-1}) for numbers in inputs.tolist())
