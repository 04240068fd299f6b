"""How much of what a sampler decided by chance no objective can move: entropy of draws that are not scored."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from dllm_rl.records.events import Kind
from dllm_rl.records.types import Rollouts, Views


def unscored_entropy_share(rollouts: Rollouts, views: Views | None = None) -> float:
    """Return the share of the draws' summed entropy that lies on draws which are not scored; 0 where all are certain.

    Scored are the final draws of `completion_mask`. A draw that was taken back is not; a flow's transitions at a column
    are one chain, scored or not as a whole.

    views: replayed steps; then only their draws are judged, by what the views score. Steps left to chance (K of S) are
        no loss: the others stand for them in the mean.
    """
    record = rollouts.trajectory
    assert record is not None
    events = record.events
    row, column = events.row, events.column.long()
    counted = (events.kind <= Kind.JUMP) & rollouts.valid[row]
    is_final = (events.kind == Kind.JUMP) | (events.step == record.commit_step[row, column])
    scored = rollouts.completion_mask[row, column] & is_final
    if views is not None and views.is_replay and views.step is not None:
        replayed, scored = _replayed(rollouts, views)
        counted &= replayed
    total = float(events.entropy[counted].sum())
    return float(events.entropy[counted & ~scored].sum()) / total if total > 0 else 0.0


def _replayed(rollouts: Rollouts, views: Views) -> tuple[Bool[Tensor, " e"], Bool[Tensor, " e"]]:
    """Which events belong to a step that some view replays, and which of them a view scores."""
    assert rollouts.trajectory is not None and views.step is not None
    events = rollouts.trajectory.events
    row, column = events.row, events.column.long()
    replayed = torch.zeros_like(events.step, dtype=torch.bool)
    scored = torch.zeros_like(replayed)
    for step, score in zip(views.step, views.score, strict=True):
        here = (events.step == step[row]) & score.any(dim=1)[row]
        replayed |= here
        scored |= here & score[row, column]
    return replayed, scored
