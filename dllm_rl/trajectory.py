"""Readings of a recorded trajectory: the canvas at every step, the order of writing, and which step wrote what.

Legend: b rows, l canvas, s steps.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.types import Completions


def frames(completions: Completions, blank_id: int) -> Int[Tensor, "b s1 l"]:
    """The canvas before the first step and after each. blank_id fills what was not yet written left to right.

    There, tokens that a grammar forced are written with the draw before them.
    """
    trajectory = completions.trajectory
    if trajectory.canvases is not None:
        return trajectory.canvases
    steps = torch.arange(-1, int(trajectory.commit_step.max()) + 1)
    is_written = trajectory.commit_step.cummax(dim=1).values[:, None] <= steps[:, None]
    return torch.where(is_written, completions.ids[:, None], blank_id)


def states(completions: Completions, steps: Int[Tensor, " b"]) -> Int[Tensor, "b l"]:
    """The canvas that each row's step read. Raises ConfigError where the sampler keeps no canvases (left to right)."""
    canvases = completions.trajectory.canvases
    if canvases is None:
        raise ConfigError("this sampler writes left to right and keeps no canvases: a step read the tokens before it")
    return canvases[torch.arange(len(canvases)), steps]


def commit_order(completions: Completions, row: int) -> list[int]:
    """Columns of a row in the order in which their final tokens were drawn; equal steps from left to right."""
    step = completions.trajectory.commit_step[row]
    return [int(column) for column in step.argsort(stable=True) if step[column] >= 0]


def retakes(completions: Completions, mask_id: int) -> Bool[Tensor, "b l"]:
    """Positions that were masked again after they had a token."""
    canvases = completions.trajectory.canvases
    if canvases is None:
        return torch.zeros_like(completions.mask)
    return ((canvases[:, :-1] != mask_id) & (canvases[:, 1:] == mask_id)).any(dim=1)


def step_map(completions: Completions, mask_id: int, *, last: bool = False) -> Int[Tensor, "b l"]:
    """Step that wrote each position, -1 where nothing was drawn.

    Raises ConfigError where positions were masked again, unless `last` asks for the step of the last write.
    """
    if not last and retakes(completions, mask_id).any():
        raise ConfigError("positions were masked again, so one step does not say it all; ask for last=True")
    return completions.trajectory.commit_step


def confidence(completions: Completions) -> Float[Tensor, "b l"]:
    """Probability with which each drawn token was drawn; 1 where it was forced.

    The flow family draws every position again and again, so that no single draw wrote it: there it is exp(-entropy) of
    the law of the last draw, which is 1 where that was certain.
    """
    record = completions.trajectory
    return record.log_probs.exp() if record.time is None else (-record.entropy).exp()
