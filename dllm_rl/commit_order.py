"""In which order a sampler wrote its canvases: position against denoising step, counted over a step's rollouts."""

from __future__ import annotations

from typing import Any

import torch

from dllm_rl.types import Rollouts

MAX_POSITIONS, MAX_STEPS = 24, 24


def commit_counts(rollouts: Rollouts) -> dict[str, Any]:
    """Counts of scored tokens by position (rows) and the denoising step that wrote them (columns), both binned.

    num_positions, num_steps: what the bins cover, from 0. Tokens that no step drew are not counted.
    """
    trajectory = rollouts.trajectory
    assert trajectory is not None
    commit = trajectory.commit_step
    drawn = rollouts.completion_mask & (commit >= 0)
    if not drawn.any():
        return {"num_positions": 0, "num_steps": 0, "counts": []}
    position = torch.arange(commit.shape[1], device=commit.device).expand_as(commit)[drawn]
    step = commit[drawn]
    num_positions, num_steps = int(position.max()) + 1, int(step.max()) + 1
    rows, columns = min(MAX_POSITIONS, num_positions), min(MAX_STEPS, num_steps)
    index = (position * rows // num_positions) * columns + step * columns // num_steps
    counts = torch.bincount(index, minlength=rows * columns).reshape(rows, columns)
    return {"num_positions": num_positions, "num_steps": num_steps, "counts": counts.tolist()}
