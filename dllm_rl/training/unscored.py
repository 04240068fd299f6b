"""How much of what a sampler decided by chance no objective can move: entropy of draws that are not scored."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from dllm_rl.records.events import Events, Kind
from dllm_rl.records.types import Rollouts, Views


def unscored_entropy_share(rollouts: Rollouts, views: Views | None = None) -> float:
    """Return the share of the draws' summed entropy that lies on draws which are not scored; 0 where all are certain.

    The final draws in `completion_mask` are scored, and draws that were remasked are not. A flow's transitions at one
    column are one chain, which is scored or not as a whole.

    Args:
        views: The replayed steps. Draws of these steps that the views leave out count as unscored. Steps that a method
            did not sample (K of S) do not: the sampled steps estimate the sum over all.
    """
    record = rollouts.trajectory
    assert record is not None
    events = record.events
    row, column = events.row, events.column.long()
    counted = (events.kind <= Kind.JUMP) & rollouts.valid[row]
    is_final = (events.kind == Kind.JUMP) | (events.step == record.commit_step[row, column])
    scored = counted & rollouts.completion_mask[row, column] & is_final
    total, kept = (float(events.entropy[where].sum()) for where in (counted, scored))
    if total == 0:
        return 0.0
    if views is not None and views.is_replay and views.step is not None:
        kept *= _kept_share(events, views, scored)
    return max(0.0, 1 - kept / total)


def _kept_share(events: Events, views: Views, scored: Bool[Tensor, " e"]) -> float:
    """Share of the entropy of these draws that the views score, over the steps that they replay; 1 where none."""
    assert views.step is not None
    row, column = events.row, events.column.long()
    replayed = torch.zeros_like(scored)
    kept = torch.zeros_like(scored)
    for step, score in zip(views.step, views.score, strict=True):
        here = scored & (events.step == step[row]) & score.any(dim=1)[row]
        replayed |= here
        kept |= here & score[row, column]
    total = float(events.entropy[replayed].sum())
    return float(events.entropy[kept].sum()) / total if total > 0 else 1.0
