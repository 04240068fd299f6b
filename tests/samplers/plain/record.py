"""The sampler's notebook: who wrote which token when, with which probability."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.policies.base import BasePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """A trajectory as whole canvases, one a step, with the final draw of each position."""

    canvases: Int[Tensor, "b s1 l"] | None
    time: Tensor | None
    commit_step: Int[Tensor, "b l"]
    log_probs: Float[Tensor, "b l"]
    entropy: Float[Tensor, "b l"]
    order: Int[Tensor, "b s1 l"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Completions with such a trajectory."""

    ids: Int[Tensor, "b l"]
    mask: Bool[Tensor, "b l"]
    trajectory: States
    nfe: int
    token_forwards: int


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

    def commit(
        self, where: Bool[Tensor, "b l"], step: int, log_probs: Float[Tensor, "b l"], entropy: Float[Tensor, "b l"]
    ) -> None:
        """These positions got their final token at this step."""
        self.commit_step = torch.where(where, step, self.commit_step)
        self.log_probs = torch.where(where, log_probs, self.log_probs)
        self.entropy = torch.where(where, entropy, self.entropy)

    def state(self, canvas: Int[Tensor, "b l"], order: Int[Tensor, "b l"] | None = None) -> None:
        """The canvas after a step; `order` is the feed order that the step before it used."""
        self.states.append(canvas.clone())
        if order is not None:
            self.orders.append(order.clone())

    def finish(self, policy: BasePolicy, canvas: Int[Tensor, "b l"], *, time: Tensor | None = None) -> Written:
        """Close the canvas at its first EOS and freeze the record."""
        ids = policy.canvas.close(canvas)
        mask = self._scored(canvas, policy.canvas.eos_id)
        order = None
        if self.keeps_order:
            natural = torch.arange(canvas.shape[1]).expand_as(canvas)
            order = torch.stack([*self.orders, natural], dim=1)
        drawn = self.commit_step >= 0
        trajectory = States(
            canvases=torch.stack(self.states, dim=1) if self.states else None,
            time=time,
            commit_step=self.commit_step,
            log_probs=torch.where(drawn, self.log_probs, 0.0),
            entropy=torch.where(drawn, self.entropy, 0.0),
            order=order,
        )
        return Written(ids=ids, mask=mask, trajectory=trajectory, nfe=self.nfe, token_forwards=self.token_forwards)

    def _scored(self, canvas: Int[Tensor, "b l"], eos_id: int) -> Bool[Tensor, "b l"]:
        """Every draw, but a row's last ones behind an EOS that was drawn before them."""
        mask = self.commit_step >= 0
        for row, steps in enumerate(self.commit_step.tolist()):
            for column, step in enumerate(steps):
                ended = [at for at in range(column) if canvas[row, at] == eos_id and steps[at] < step]
                if step == max(steps) and ended:
                    mask[row, column] = False
        return mask


def is_finished(canvas: Int[Tensor, "b l"], is_masked: Bool[Tensor, "b l"], eos_id: int) -> Bool[Tensor, " b"]:
    """Rows where no mask stands before the first EOS (or anywhere, where there is no EOS)."""
    is_eos = (canvas == eos_id) & ~is_masked
    after = is_eos.cumsum(dim=1) > 0
    return ~(is_masked & ~after).any(dim=1)
