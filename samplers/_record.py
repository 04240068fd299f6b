"""The sampler's notebook: who wrote which token when, with which probability."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.constraint import Constraint
from dllm_rl.protocols import Policy
from dllm_rl.types import Completions, FlowLaw, Trajectory


class Recorder:
    """Collects states and commits while a canvas is written; `finish` makes the immutable record."""

    def __init__(self, canvas: Int[Tensor, "b l"], *, keeps_states: bool, keeps_order: bool = False) -> None:
        self.states: list[Tensor] = [canvas.clone()] if keeps_states else []
        self.orders: list[Tensor] = []
        self.keeps_order = keeps_order
        self.commit_step = torch.full_like(canvas, -1)
        self.log_probs = torch.zeros(canvas.shape)
        self.entropy = torch.zeros(canvas.shape)
        self.nfe = 0
        self.token_forwards = 0

    def count(self, rows: int, queries: int) -> None:
        """One forward over so many rows and query positions."""
        self.nfe += 1
        self.token_forwards += rows * queries

    def commit_at(
        self,
        row: Int[Tensor, " n"],
        column: Int[Tensor, " n"],
        step: int,
        log_probs: Float[Tensor, " n"],
        entropy: Float[Tensor, " n"],
    ) -> None:
        """The positions at these rows and columns got their final token at this step."""
        self.commit_step[row, column] = step
        self.log_probs[row, column] = log_probs
        self.entropy[row, column] = entropy

    def take_back(self, row: Int[Tensor, " n"], column: Int[Tensor, " n"]) -> None:
        """The positions at these rows and columns are masked again: only a later draw counts."""
        self.commit_step[row, column] = -1
        self.log_probs[row, column] = 0.0
        self.entropy[row, column] = 0.0

    def state(self, canvas: Int[Tensor, "b l"], order: Int[Tensor, "b l"] | None = None) -> None:
        """The canvas after a step; `order` is the feed order that the step before it used."""
        self.states.append(canvas.clone())
        if order is not None:
            self.orders.append(order.clone())

    def finish(
        self,
        policy: Policy,
        canvas: Int[Tensor, "b l"],
        *,
        time: Tensor | None = None,
        constraint: Constraint | None = None,
        is_approximate: bool = False,
        flow_law: FlowLaw = "exact",
    ) -> Completions:
        """Close the canvas at its first EOS and freeze the record."""
        ids = policy.canvas.close(canvas)
        mask = policy.canvas.scored(ids)
        order = None
        if self.keeps_order:
            natural = torch.arange(canvas.shape[1]).expand_as(canvas)
            order = torch.stack([*self.orders, natural], dim=1)
        drawn = self.commit_step >= 0
        trajectory = Trajectory(
            canvases=torch.stack(self.states, dim=1) if self.states else None,
            time=time,
            commit_step=self.commit_step,
            log_probs=torch.where(drawn, self.log_probs, 0.0),
            entropy=torch.where(drawn, self.entropy, 0.0),
            order=order,
            constraint=constraint,
            is_approximate=is_approximate,
            flow_law=flow_law,
        )
        return Completions(ids=ids, mask=mask, trajectory=trajectory, nfe=self.nfe, token_forwards=self.token_forwards)


def is_finished(canvas: Int[Tensor, "b l"], is_masked: Bool[Tensor, "b l"], eos_id: int) -> Bool[Tensor, " b"]:
    """Rows where no mask stands before the first EOS (or anywhere, where there is no EOS)."""
    is_eos = (canvas == eos_id) & ~is_masked
    after = is_eos.cumsum(dim=1) > 0
    return ~(is_masked & ~after).any(dim=1)


def columns_of(where: Bool[Tensor, "b l"]) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
    """The marked columns of each row in order, and which of them are marked (rows with fewer are filled up)."""
    count = int(where.sum(dim=1).max())
    columns = (~where).long().argsort(dim=1, stable=True)[:, :count]
    return columns, where.gather(1, columns)
