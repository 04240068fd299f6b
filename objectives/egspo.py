"""EGSPO (2603.12554): the policy gradient of the denoising process, taken at the steps of highest entropy.

A step is one action: its ratio is that of the probability of all that it wrote. The steps are those whose draws had the
highest mean entropy, which bound what leaving out the others can cost; each stands for an equal share of the row.
Departures: the public code takes one optimiser step for each chosen step, here they are one sum. Its penalty is the
exact KL of a step's distributions, here k2 of the step's log-probability. Sums are divided by a row's scored tokens,
there by the tokens of a step. With fewer steps than a row has, the gradient is biased towards uncertain steps, as
there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dllm_rl.advantages import AdvantageName
from dllm_rl.policies.process import ForwardProcess, trajectory_of
from dllm_rl.records.events import Kind
from dllm_rl.records.types import Loss, LossInputs, Replays, Rollouts, Views
from dllm_rl.registry import register
from objectives import (
    BelowOne,
    Clip,
    Count,
    Method,
    NonNegative,
    Penalty,
    clipped_terms,
    k2,
    lengths,
    log_ratio,
    mean_of_rows,
    reference_log_ratio,
)


@register("objective", "egspo")
@dataclass(frozen=True, slots=True, kw_only=True)
class EGSPO(Method):
    """Entropy-Guided Stepwise Policy Optimization.

    Attributes:
        num_steps: Replayed steps per row, None = all.

    Undefined for the autoregressive family, where a step is a token: `grpo` has its ratios.
    """

    name: ClassVar[str] = "egspo"
    paper: ClassVar[str] = "2603.12554"
    level: ClassVar[str] = "step"
    families: ClassVar[tuple[str, ...]] = ("masked", "block", "slot", "flow")
    replays: ClassVar[Replays] = Replays.STEPS
    requires: ClassVar[tuple[str, ...]] = ("trajectory",)
    version: ClassVar[int] = 2

    advantage: AdvantageName = "centred"
    clip_low: BelowOne = 0.2
    clip_high: NonNegative = 0.2
    num_steps: Count | None = 8

    @property
    def num_views(self) -> int | None:
        """One for each replayed step."""
        return self.num_steps

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """The recorded canvases before the chosen steps; loss_weight is the row's steps over those chosen."""
        own = process.own_steps(rollouts)
        total = own.sum(-1)
        width = max(1, min(self.num_steps or own.shape[1], int(total.max())))
        entropy = step_entropy(rollouts, own.shape[1]).masked_fill(~own, -torch.inf)
        steps = entropy.topk(width, dim=-1).indices.sort(-1).values.T
        is_own = own.gather(1, steps.T).T
        return process.replay_steps(rollouts, steps, is_own * total / is_own.sum(0).clamp(min=1))

    def loss(self, inputs: LossInputs) -> Loss:
        """(1/R) sum_b (1/N_b) sum_k v_k [-ppo(exp sum_{i in E_k} D_ki, A_bk) + beta k2(sum_{i in E_k} d_ki)]."""
        rollouts, views, d = inputs.rollouts, inputs.views, reference_log_ratio(inputs)
        is_scored = views.score.any(-1) & rollouts.valid
        penalty = None
        if d is not None:
            d = d.sum(-1)
            penalty = Penalty(beta=self.beta, d=d, value=k2(d))
        clip = Clip(low=self.clip_low, high=self.clip_high)
        ratio = log_ratio(inputs).sum(-1)
        terms = clipped_terms(ratio, at_steps(inputs.advantages, views), is_scored, clip, penalty)
        assert views.loss_weight is not None
        entries = (views.loss_weight.amax(-1) * terms.entries).sum(0) / lengths(rollouts)
        return Loss(value=mean_of_rows(rollouts, entries), metrics=terms.metrics)


def at_steps(advantages: Float[Tensor, " b"] | Float[Tensor, "b s"], views: Views) -> Float[Tensor, "k b"]:
    """The advantage of each replayed step: the row's own, or that of the step."""
    assert views.step is not None
    return advantages.expand(views.step.shape) if advantages.dim() == 1 else advantages.gather(1, views.step.T).T


def step_entropy(rollouts: Rollouts, num_steps: int) -> Float[Tensor, "b s"]:
    """Mean entropy of the distributions that each step drew from, over scored columns; 0 where it drew nothing."""
    total, count = summed_entropy(rollouts, num_steps)
    return total / count.clamp(min=1)


def summed_entropy(rollouts: Rollouts, num_steps: int) -> tuple[Float[Tensor, "b s"], Float[Tensor, "b s"]]:
    """Summed entropy of the distributions that each step drew from, over scored columns; and the number of draws."""
    events = trajectory_of(rollouts).events
    is_draw = (events.kind <= Kind.JUMP) & rollouts.completion_mask.flatten()[events.place]
    index: Int[Tensor, " e"] = events.row[is_draw] * num_steps + events.step[is_draw].long()
    zeros = torch.zeros(rollouts.num_rows * num_steps, device=index.device)
    total = zeros.index_add(0, index, events.entropy[is_draw].float())
    count = zeros.index_add(0, index, torch.ones_like(index, dtype=torch.float32))
    return total.view(-1, num_steps), count.view(-1, num_steps)
