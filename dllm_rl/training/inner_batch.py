"""The rows and views of one inner step of an update, and the pieces that one forward is made of.

Legend: k views, b rows, n chosen rows, l canvas.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dllm_rl.records.types import Rollouts, Views
from dllm_rl.training.ranks import Ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerBatch:
    """One inner step: all rows with their views, and what other policies say of them.

    Attributes:
        mine: rows that this process goes backward from.
        inputs: Number of each row's input among the distinct ones of its view.
        old: Scores before the first update; None where they are those of the first forward, and where nothing reads
            them.
        ref: Scores of the reference policy.
        weights: Of each row's gradient; None where all are 1.
        is_first: Whether no update came before.
        is_repeated: Whether its views are those of the first inner step.
    """

    rollouts: Rollouts
    views: Views
    advantages: Tensor
    mine: Int[Tensor, " n"]
    inputs: Int[Tensor, "k b"]
    old: Float[Tensor, "k b l"] | None
    ref: Float[Tensor, "k b l"] | None
    weights: Float[Tensor, " b"] | None
    is_first: bool
    is_repeated: bool

    def rows(self, index: Int[Tensor, " n"]) -> InnerBatch:
        """The rows of this index."""
        return replace(
            self,
            rollouts=self.rollouts.rows(index),
            views=self.views.rows(index),
            advantages=self.advantages[index],
            inputs=self.inputs[:, index],
            old=None if self.old is None else self.old[:, index],
            ref=None if self.ref is None else self.ref[:, index],
            weights=None if self.weights is None else self.weights[index],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Rows of one view, of which one forward is made, and the gradient of the loss in their scores."""

    rollouts: Rollouts
    views: Views
    gradient: Tensor

    @classmethod
    def of(cls, batch: InnerBatch, index: Int[Tensor, " n"], view: Int[Tensor, ""], gradient: Tensor) -> Piece:
        """These rows of one view."""
        views = batch.views.rows(index).views(view[None])
        return cls(rollouts=batch.rollouts.rows(index), views=views, gradient=gradient)


def rows_of(ranks: Ranks, rollouts: Rollouts) -> Int[Tensor, " n"]:
    """The rows that this process goes backward from: whole groups, since a loss may couple the rows of one."""
    groups = rollouts.group_ids.unique()
    return torch.isin(rollouts.group_ids, groups[ranks.share(len(groups))]).nonzero().squeeze(1)


def rows_with_gradient(rollouts: Rollouts, advantages: Tensor, *, keeps_flat_groups: bool) -> Int[Tensor, " n"]:
    """Valid rows, of groups in which any advantage is not zero unless flat groups count too."""
    if keeps_flat_groups:
        return rollouts.valid.nonzero().squeeze(1)
    is_live = (advantages.reshape(rollouts.num_rows, -1) != 0).any(dim=1) & rollouts.valid
    groups = rollouts.group_ids[is_live].unique()
    return (torch.isin(rollouts.group_ids, groups) & rollouts.valid).nonzero().squeeze(1)
