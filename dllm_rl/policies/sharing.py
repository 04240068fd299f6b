"""Rows of equal input: which rows a forward need not read, because another row reads the same.

Rows of a group share their prompt, so views that hide the whole canvas, equal completions and first states of
trajectories come many times in one batch. Their logits are computed once; gradients of all rows add up there.

Legend: b rows, d distinct rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Which rows stand for all.

    Attributes:
        first: The first row of each distinct input, in order.
        place: Which of these each row equals; -1 where a row was not asked about.
    """

    first: Int[Tensor, " d"]
    place: Int[Tensor, " b"]

    @property
    def is_any(self) -> bool:
        """Whether a forward of all rows would read more than the distinct ones."""
        return len(self.first) < len(self.place)


def share(parts: Sequence[Tensor], among: Bool[Tensor, " b"] | None = None) -> Shared:
    """Return which rows are equal in all of these tensors, whose first dimension is that of rows.

    Args:
        among: Rows that are asked about. Default: all.
    """
    num_rows = len(parts[0])
    asked = torch.arange(num_rows) if among is None else among.nonzero().squeeze(1).cpu()
    # Ids and places are whole numbers, and times are float32: all of them are exact in float64.
    table = torch.cat([part.cpu()[asked].reshape(len(asked), -1).double() for part in parts], dim=1)
    _, label = table.unique(dim=0, return_inverse=True)
    order = torch.arange(len(asked))
    first = torch.full((int(label.max()) + 1,), len(asked)).scatter_reduce(0, label, order, "amin")
    by_appearance = first.argsort()
    place = torch.full((num_rows,), -1)
    place[asked] = by_appearance.argsort()[label]
    return Shared(first=asked[first[by_appearance]], place=place)
