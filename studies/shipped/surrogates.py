"""What surrogates say of sampled texts, at a policy and at one nearby, and how their changes follow the true ones.

Legend: b texts, l canvas.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Completions, Prompts, Rollouts, Views
from studies.shipped.forced import Likelihood, likelihood

# An error of half the spread lowers a correlation of 1 to .89.
WORST_ERROR = 0.5
Draw = Callable[[ForwardProcess, Rollouts, torch.Generator], Views]
SURROGATES: dict[str, Draw] = {
    "recorded path": lambda process, rollouts, generator: process.replay(rollouts, generator),
    "one step": lambda process, rollouts, generator: process.one_step(rollouts, generator),
    "ELBO, one pair": lambda process, rollouts, generator: process.elbo(rollouts, generator, num_draws=1),
    "ELBO, two pairs": lambda process, rollouts, generator: process.elbo(rollouts, generator, num_draws=2),
    "four strata": lambda process, rollouts, generator: process.strata(rollouts, generator, num_strata=4),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One surrogate beside the truth, over texts.

    Attributes:
        bias: Mean of surrogate less truth, a scored column.
        change: Correlation of its change with the true one.
        low, high: 95 % interval of that correlation, by Fisher's transformation.
    """

    bias: float
    change: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found under one rule.

    Attributes:
        log_prob: Mean over texts.
        error, change_error: Mean standard errors of the log-likelihood and of its change.
        effective: Mean number of effective paths of a text, of num_paths.
        change_spread: Standard deviation of the true change over texts.
        nfe: Mean steps of a text.
    """

    num_texts: int
    num_paths: int
    log_prob: float
    error: float
    effective: float
    change_error: float
    change_spread: float
    nfe: float
    surrogates: dict[str, Judged]

    @property
    def is_known(self) -> bool:
        """Whether the true changes differ by more than their errors: else nothing can follow them, right or wrong."""
        return self.change_error < WORST_ERROR * self.change_spread


def moved(policy: BasePolicy, *, size: float, seed: int) -> BasePolicy:
    """The policy after a small random step of all weights, relative to their own scale."""
    generator = torch.Generator().manual_seed(seed)
    other = copy.copy(policy)
    other.model = copy.deepcopy(policy.model)
    with torch.no_grad():
        for weight in other.model.parameters():
            scale = weight.std() if weight.numel() > 1 else weight.abs().mean()
            weight += size * scale * torch.randn(weight.shape, generator=generator)
    return other


def examine(
    policy: BasePolicy, other: BasePolicy, sampler: Any, prompts: Prompts, *, num_paths: int, seed: int
) -> Found:
    """Sample a text a prompt, and compare every surrogate with the truth at both policies."""
    drawn = sampler.generate(policy, prompts, seed=seed)
    truth, after = (
        likelihood(each, sampler, prompts, drawn.ids, num_paths=num_paths, seed=seed + 1) for each in (policy, other)
    )
    rollouts = rollouts_of(policy, prompts, drawn, temperature=sampler.temperature)
    change = after.log_prob - truth.log_prob
    columns = rollouts.completion_mask.sum(1)
    judged = {}
    for name, draw in SURROGATES.items():
        views = draw(policy.process, rollouts, torch.Generator().manual_seed(seed))
        now, then = (_weighted(views, each.view_log_probs(rollouts, views)) for each in (policy, other))
        judged[name] = judge((now - truth.log_prob) / columns, then - now, change)
    steps = drawn.trajectory.commit_step
    return Found(
        num_texts=len(drawn.ids),
        num_paths=num_paths,
        log_prob=float(truth.log_prob.mean()),
        error=float(truth.error.mean()),
        effective=float(truth.effective.mean()),
        change_error=float(change_errors(truth, after).mean()),
        change_spread=float(change.std()),
        nfe=sum(len(set(row.tolist()) - {-1}) for row in steps) / len(steps),
        surrogates=judged,
    )


def judge(error: Float[Tensor, " b"], given: Float[Tensor, " b"], true: Float[Tensor, " b"]) -> Judged:
    """The mean error, and the correlation of changes with its interval."""
    change = float(torch.corrcoef(torch.stack([given, true]))[0, 1])
    middle, half = math.atanh(max(-0.999999, min(0.999999, change))), 1.96 / math.sqrt(max(1, len(true) - 3))
    return Judged(bias=float(error.mean()), change=change, low=math.tanh(middle - half), high=math.tanh(middle + half))


def change_errors(before: Likelihood, after: Likelihood) -> Float[Tensor, " b"]:
    """Standard errors of the changes: paths share their noise, so that errors of both largely cancel."""
    if len(before.weights) == 1:
        return torch.zeros_like(before.log_prob)
    shares = [(each.weights - each.log_prob).exp() for each in (before, after)]
    return (shares[1] - shares[0]).std(0) / len(before.weights) ** 0.5


@torch.no_grad()
def _weighted(views: Views, terms: Float[Tensor, "k b l"]) -> Float[Tensor, " b"]:
    weight = views.weight if views.loss_weight is None else views.weight * views.loss_weight
    return (weight * torch.where(views.score, terms, 0.0)).sum((0, 2)).double()


def rollouts_of(policy: BasePolicy, prompts: Prompts, drawn: Completions, *, temperature: float) -> Rollouts:
    """The texts as rollouts, each scored up to its EOS: what the truth is the probability of."""
    mask = policy.canvas.until_eos(drawn.ids) & (drawn.trajectory.commit_step >= 0)
    valid, group_ids = torch.ones(len(mask), dtype=torch.bool), torch.zeros(len(mask), dtype=torch.long)
    rollouts = Rollouts(
        prompt_ids=prompts.ids,
        prompt_mask=prompts.mask,
        completion_ids=drawn.ids,
        completion_mask=mask,
        rewards=torch.zeros(len(mask)),
        group_ids=group_ids,
        valid=valid,
        trajectory=drawn.trajectory,
        totals=Rollouts.count_totals(valid, group_ids, mask),
    )
    return replace(rollouts, temperature=temperature)
