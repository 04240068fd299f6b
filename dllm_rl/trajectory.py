"""Readings of a recorded trajectory: the canvas at every step, the order of writing, and which step wrote what.

Legend: b rows, l canvas, s steps.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.events import Kind
from dllm_rl.types import Completions


def frames(completions: Completions, blank_id: int) -> Int[Tensor, "b s1 l"]:
    """The canvas before the first step and after each. blank_id fills what was not yet written left to right.

    There, tokens that a grammar forced are written with the draw before them.
    """
    record = completions.trajectory
    if record.canvases is not None:
        return record.canvases
    steps = torch.arange(record.num_steps + 1)[:, None].expand(-1, len(completions.ids))
    return record.states(steps, blank_id).transpose(0, 1)


def states(completions: Completions, steps: Int[Tensor, " b"]) -> Int[Tensor, "b l"]:
    """The canvas that each row's step read. Raises ConfigError where the sampler keeps no canvases (left to right)."""
    if not completions.trajectory.keeps_states:
        raise ConfigError("this sampler writes left to right and keeps no canvases: a step read the tokens before it")
    return completions.trajectory.states(steps[None])[0]


def commit_order(completions: Completions, row: int) -> list[int]:
    """Columns of a row in the order in which their final tokens were drawn; equal steps from left to right."""
    step = completions.trajectory.commit_step[row]
    return [int(column) for column in step.argsort(stable=True) if step[column] >= 0]


def retakes(completions: Completions) -> Bool[Tensor, "b l"]:
    """Positions where a token was masked again, or overwritten by another one (the flow family's jumps aside)."""
    events = completions.trajectory.events
    found = torch.zeros_like(completions.mask)
    found.view(-1)[events.place[(events.kind == Kind.REMASK) | (events.kind == Kind.EDIT)]] = True
    return found


def step_map(completions: Completions, *, last: bool = False) -> Int[Tensor, "b l"]:
    """Step that wrote each position, -1 where nothing was drawn.

    Raises ConfigError where positions were masked again or overwritten, unless `last` asks for the last write's step.
    """
    if not last and retakes(completions).any():
        raise ConfigError("positions were masked again, so one step does not say it all; ask for last=True")
    return completions.trajectory.commit_step


def confidence(completions: Completions) -> Float[Tensor, "b l"]:
    """Probability with which each drawn token was drawn; 1 where it was forced.

    The flow family draws every position again and again, so that no single draw wrote it: there it is exp(-entropy) of
    the law of the last draw, which is 1 where that was certain.
    """
    record = completions.trajectory
    return record.log_probs.exp() if record.time is None else (-record.entropy).exp()
