"""Views that replay recorded denoising steps: the canvases as they were, and what was committed on them.

Legend: b rows, l canvas, k views, s steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.types import Rollouts, Views
from dllm_rl.views import exact

if TYPE_CHECKING:
    from dllm_rl.process import ForwardProcess


def trajectory(
    rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator, *, num_steps: int | None = None
) -> Views:
    """Recorded denoising steps, each scoring what it committed (flow: the transition of every position).

    num_steps: K steps per row, drawn uniformly without replacement among the row's own S steps (those that committed a
    scored token), with loss_weight S / K, so that the sum over views estimates the sum over all steps; None takes all.
    Rows with fewer than K steps use all of theirs, and their other views score nothing.
    Autoregressive: a step is a token, and one exact view holds all of them.
    """
    if process.family == "autoregressive":
        return exact(rollouts)
    own = own_steps(rollouts, process)
    total = own.sum(-1)
    width = int(total.max()) if num_steps is None else min(num_steps, int(total.max()))
    keys = torch.rand(own.shape, generator=generator, device=generator.device).to(own.device)
    steps = torch.where(own, keys, 2.0).argsort(-1)[:, : max(width, 1)]
    is_own = own.gather(1, steps)
    steps = torch.where(is_own, steps, own.shape[1]).sort(-1).values.T
    is_own = steps < own.shape[1]
    weight = is_own * total / is_own.sum(0).clamp(min=1)
    return replay(rollouts, process, steps.clamp(max=own.shape[1] - 1), weight)


def replay(
    rollouts: Rollouts,
    process: ForwardProcess,
    steps: Int[Tensor, "k b"],
    loss_weight: Float[Tensor, "k b"],
    span: int = 1,
) -> Views:
    """The recorded canvases before the given steps, each scoring what steps [s, s + span) committed.

    A loss_weight of 0 means that the view scores nothing.
    """
    recorded = rollouts.trajectory
    if recorded is None or not recorded.keeps_states:
        raise ConfigError(
            "a trajectory view needs recorded canvases; sample with a sampler that records its trajectory."
        )
    if recorded.is_approximate:
        raise ConfigError(
            "this record is approximate: its sampler masks tokens again (which of its draws stayed depended on them), "
            "draws from stale keys and values (cache 'prefix' or 'dual'), or from guided laws. What a replay gives are "
            "not the probabilities of what was done. Train with another sampler, or with an objective that does not "
            "replay trajectories; this one may still be used for evaluation."
        )
    is_used = (loss_weight > 0)[..., None]
    if process.family == "flow":
        score = is_used & rollouts.completion_mask
    else:
        commit = recorded.commit_step
        score = is_used & rollouts.completion_mask & (commit >= steps[..., None]) & (commit < steps[..., None] + span)
    time = None if recorded.time is None else recorded.time.to(steps.device)
    return Views(
        kind="trajectory",
        tokens=recorded.states(steps),
        targets=recorded.states(steps + 1) if process.family == "flow" else None,
        score=score,
        weight=score.float(),
        loss_weight=score * loss_weight[..., None].float(),
        time=time[steps] if time is not None and process.family == "flow" else None,
        time_next=time[steps + 1] if time is not None and process.family == "flow" else None,
        flow_law=recorded.flow_law,
        step=steps,
        order=recorded.orders(steps),
    )


def own_steps(rollouts: Rollouts, process: ForwardProcess) -> Bool[Tensor, "b s"]:
    """Which steps of the trajectory committed a scored token of the row; all of them for the flow family.

    Where a grammar forced everything there was no step; one that committed nothing stands for it.
    """
    recorded = rollouts.trajectory
    if recorded is None:
        raise ConfigError("these rollouts carry no trajectory; sample with a sampler that records one.")
    shape = (rollouts.num_rows, max(1, recorded.num_steps))
    device = rollouts.completion_ids.device
    if process.family == "flow":
        return torch.ones(shape, dtype=torch.bool, device=device)
    is_event = rollouts.completion_mask & (recorded.commit_step >= 0)
    events = torch.zeros(shape, dtype=torch.long, device=device)
    return events.scatter_add(1, recorded.commit_step.clamp(min=0), is_event.long()) > 0
