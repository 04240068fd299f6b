"""Completions of several batches as one record, in any order of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dllm_rl.constraint import join
from dllm_rl.errors import ConfigError
from dllm_rl.events import join_events
from dllm_rl.types import Completions, Trajectory


def join_completions(parts: Sequence[Completions], place: Tensor | None = None) -> Completions:
    """One record of all rows; place: row of the parts, put one after another, that each row is, default as they come.

    Shorter trajectories stay at their last state; nfe is that of the longest.
    """
    rows = torch.arange(sum(len(part.ids) for part in parts)) if place is None else place
    return Completions(
        ids=torch.cat([part.ids for part in parts])[rows],
        mask=torch.cat([part.mask for part in parts])[rows],
        trajectory=join_trajectories([part.trajectory for part in parts], rows),
        nfe=max(part.nfe for part in parts),
        token_forwards=sum(part.token_forwards for part in parts),
    )


def join_trajectories(parts: Sequence[Trajectory], place: Tensor | None = None) -> Trajectory:
    """One record of all rows, as `join_completions`.

    Raises ConfigError for flow trajectories of different numbers of steps.
    """
    longest = max(part.num_steps for part in parts)
    if parts[0].time is not None and any(part.num_steps != longest for part in parts):
        raise ConfigError(
            "trajectories of different numbers of flow steps cannot be joined; fix the sampler's num_steps."
        )
    paths = [part.path_log_probs for part in parts if part.path_log_probs is not None]
    slots = [part.slot_joined for part in parts if part.slot_joined is not None]
    constraints = [part.constraint for part in parts if part.constraint is not None]
    joined = replace(
        parts[0],
        events=join_events([part.events for part in parts]),
        num_steps=longest,
        path_log_probs=torch.cat(paths) if paths else None,
        slot_joined=torch.cat(slots) if slots else None,
        constraint=join(constraints) if constraints else None,
        is_approximate=any(part.is_approximate for part in parts),
    )
    return joined if place is None else joined.rows(place)
