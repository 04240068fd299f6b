"""MDPO (2508.13148): every denoising step is judged by the answer it would have given, and trained on that answer.

The reward of a step is what its completed answer gains over the step before plus the mean of what follows; the loss is
over all tokens that were still open, towards the completed answer.
Departures from the paper: lambda is the canvas length over the number of *open* tokens, so that late steps weigh more
(over newly written ones it is a constant), as in the public code; the last reward is the browser's. The public code
multiplies the KL by the confidence; here it is not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from dllm_rl.advantages import ESTIMATORS
from dllm_rl.errors import ConfigError
from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Answers, Loss, LossInputs, Rollouts, Views
from dllm_rl.registry import register
from objectives import (
    BelowOne,
    Clip,
    Count,
    Method,
    NonNegative,
    clipped_terms,
    k2,
    kl_metrics,
    log_ratio,
    mean_of_rows,
    reference_log_ratio,
    weighted,
)


@register("objective", "mdpo")
@dataclass(frozen=True, slots=True, kw_only=True)
class MDPO(Method):
    """Masked Diffusion Policy Optimization.

    Attributes:
        num_steps: Replayed steps, those of the group's largest summed |A|.

    Undefined for the autoregressive family, whose steps give no intermediate answer.
    """

    name: ClassVar[str] = "mdpo"
    paper: ClassVar[str] = "2508.13148"
    version: ClassVar[int] = 3
    level: ClassVar[str] = "step"
    families: ClassVar[tuple[str, ...]] = ("masked", "block", "slot", "flow")
    requires: ClassVar[tuple[str, ...]] = ("trajectory", "step_rewards", "answers")
    published: ClassVar[dict[str, Any] | None] = {"beta": 0.0}

    beta: NonNegative = 0.02
    clip_low: BelowOne = 0.2
    clip_high: NonNegative = 0.2
    num_steps: Count = 8

    def advantages(self, rollouts: Rollouts) -> Float[Tensor, "b s"]:
        """Group-relative advantages of y_s = r_s - r_{s-1} + mean_{t>s} r_t, step by step; the last mean is r_S."""
        estimate = ESTIMATORS[self.advantage]
        gains = temporal_rewards(rollouts)
        columns = [estimate(column, rollouts.group_ids, rollouts.valid) for column in gains.unbind(1)]
        return torch.stack(columns, dim=1)

    @property
    def num_views(self) -> int | None:
        """One for each replayed step."""
        return self.num_steps

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """The canvases before the chosen steps; targets are the answers, scored wherever they were still open."""
        answers = _answers(rollouts)
        row = torch.arange(rollouts.num_rows, device=answers.ids.device)
        steps = self._steps(rollouts, answers.score.any(-1))
        score = answers.score[row, steps]
        num_open = score.sum(-1, keepdim=True).clamp(min=1)
        num_views = score.any(-1).sum(0)[:, None].clamp(min=1)
        return replace(
            process.recorded(rollouts, steps),
            targets=answers.ids[row, steps],
            score=score,
            weight=score.float(),
            # lambda / |H| with lambda = max_len / |H|, times the confidence, over the K views of the row.
            loss_weight=answers.confidence[row, steps] * rollouts.totals.max_len / num_open.square() / num_views,
        )

    def _steps(self, rollouts: Rollouts, is_alive: Bool[Tensor, "b s"]) -> Int[Tensor, "k b"]:
        """For each row the steps at which its group's advantages are largest, in order of time."""
        size = self.advantages(rollouts).abs() * is_alive
        _, group = rollouts.group_ids.unique(return_inverse=True)
        summed = torch.zeros(int(group.max()) + 1, size.shape[1], device=size.device).index_add(0, group, size)
        chosen = summed.topk(min(self.num_steps, size.shape[1]), dim=1).indices.sort(1).values
        return chosen[group].T

    def loss(self, inputs: LossInputs) -> Loss:
        """(1/R) sum_b (1/K) sum_k [(lambda_k/|H_k|) sum_{i in H_k} -conf_ki ppo(exp D_ki, A_b,sk) + beta mean_H k2]."""
        rollouts, views, d = inputs.rollouts, inputs.views, reference_log_ratio(inputs)
        assert views.step is not None
        is_scored = views.score & rollouts.valid[:, None]
        at_step = inputs.advantages.gather(1, views.step.T).T[..., None]
        terms = clipped_terms(log_ratio(inputs), at_step, is_scored, Clip(low=self.clip_low, high=self.clip_high))
        entries, metrics = weighted(views, terms.entries).sum((0, 2)), terms.metrics
        if d is not None:
            per_view = k2(d).sum(-1) / views.score.sum(-1).clamp(min=1)
            entries = entries + self.beta * per_view.sum(0) / views.score.any(-1).sum(0).clamp(min=1)
            metrics = metrics | kl_metrics(d, k2(d), is_scored)
        return Loss(value=mean_of_rows(rollouts, entries), metrics=metrics)


def temporal_rewards(rollouts: Rollouts) -> Float[Tensor, "b s"]:
    """y_s = r_s - r_{s-1} + mean_{t>s} r_t, with r_{-1} = 0 and, at a row's last step, r_S in place of the mean.

    The mean is over the row's own steps, those that wrote something in it, however many others there are.
    """
    rewards = rollouts.step_rewards
    if rewards is None:
        raise ConfigError("objective 'mdpo' needs step_rewards, which these rollouts lack; see training.intermediate.")
    before = torch.nn.functional.pad(rewards, (1, 0))[:, :-1]
    is_own = _answers(rollouts).is_asked
    following, num_following = _after(rewards * is_own), _after(is_own.long())
    mean = torch.where(num_following > 0, following / num_following.clamp(min=1), rewards)
    return rewards - before + mean


def _after(values: Shaped[Tensor, "b s"]) -> Shaped[Tensor, "b s"]:
    """Sum over later steps."""
    return values.flip(1).cumsum(1).flip(1) - values


def _answers(rollouts: Rollouts) -> Answers:
    if rollouts.answers is None:
        raise ConfigError(
            "objective 'mdpo' needs intermediate answers, which these rollouts lack; see dllm_rl.training.intermediate."
        )
    return rollouts.answers
