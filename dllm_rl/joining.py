"""Completions of several batches as one record, in any order of rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dllm_rl.constraint import Constraint, join
from dllm_rl.types import Completions, Trajectory


def join_completions(parts: Sequence[Completions], place: Tensor | None = None) -> Completions:
    """One record of all rows; place: row of the parts, put one after another, that each row is, default as they come.

    Shorter trajectories stay at their last state; nfe is that of the longest.
    """
    rows = torch.arange(sum(len(part.ids) for part in parts)) if place is None else place
    records = [part.trajectory for part in parts]
    trajectory = Trajectory(
        canvases=_states([record.canvases for record in records], rows),
        time=records[0].time,
        commit_step=torch.cat([record.commit_step for record in records])[rows],
        log_probs=torch.cat([record.log_probs for record in records])[rows],
        entropy=torch.cat([record.entropy for record in records])[rows],
        order=_states([record.order for record in records], rows),
        constraint=_constraints([record.constraint for record in records], rows),
        flow_law=records[0].flow_law,
        is_approximate=any(record.is_approximate for record in records),
    )
    return Completions(
        ids=torch.cat([part.ids for part in parts])[rows],
        mask=torch.cat([part.mask for part in parts])[rows],
        trajectory=trajectory,
        nfe=max(part.nfe for part in parts),
        token_forwards=sum(part.token_forwards for part in parts),
    )


def _constraints(records: Sequence[Constraint | None], rows: Tensor) -> Constraint | None:
    constraints = [record for record in records if record is not None]
    return join(constraints).rows(rows) if constraints else None


def join_states(records: Sequence[Tensor | None]) -> Tensor | None:
    """States (b, s + 1, l) of several records below one another, the last one repeated up to the longest record."""
    tensors = [record for record in records if record is not None]
    if not tensors:
        return None
    longest = max(tensor.shape[1] for tensor in tensors)
    return torch.cat(
        [torch.cat([tensor, tensor[:, -1:].expand(-1, longest - tensor.shape[1], -1)], dim=1) for tensor in tensors]
    )


def _states(records: Sequence[Tensor | None], rows: Tensor) -> Tensor | None:
    joined = join_states(records)
    return None if joined is None else joined[rows]
