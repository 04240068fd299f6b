"""What each likelihood surrogate of the registered objectives says of every completion, and how far off that is.

The surrogate of an objective is the weighted sum of the terms that its views score, by the package's own views and
scoring code; so is the change of it when the policy moves, on shared views, which is the log of the ratio that RL uses.
Legend: d draws of views, n completions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from torch import Tensor

from dllm_rl import registry
from dllm_rl.records.types import Views
from studies.exact.laws import Law
from studies.exact.policy import EnumerablePolicy

BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogate:
    """A surrogate by the objective whose views define it; name None: the recorded path of the sampler itself."""

    label: str
    used_by: str
    name: str | None
    options: dict[str, Any]


SURROGATES = (
    Surrogate(label="recorded path", used_by="cj_grpo, flow_grpo, agrpo", name=None, options={}),
    Surrogate(label="one step", used_by="grpo, gspo, rloo, wd1", name="grpo", options={}),
    Surrogate(
        label="ELBO, 1 plain view",
        used_by="advantage_weighted_denoising",
        name="advantage_weighted_denoising",
        options={},
    ),
    Surrogate(label="ELBO, 1 pair", used_by="espo in grid16", name="espo", options={"num_draws": 1}),
    Surrogate(label="ELBO, 2 pairs", used_by="espo, gdsd, stable_drl", name="espo", options={"num_draws": 2}),
    Surrogate(label="ELBO, 8 pairs", used_by="espo", name="espo", options={"num_draws": 8}),
    Surrogate(
        label="ELBO, 16 plain views", used_by="bgpo", name="espo", options={"num_draws": 16, "antithetic": False}
    ),
    Surrogate(label="full mask + mask + complement", used_by="coupled_grpo", name="coupled_grpo", options={}),
    Surrogate(label="hidden tokens of one level", used_by="unigrpo", name="unigrpo", options={}),
    Surrogate(label="left to right", used_by="just_grpo", name="just_grpo", options={}),
    Surrogate(label="causal, shifted", used_by="ar_surrogate_grpo", name="ar_surrogate_grpo", options={}),
    Surrogate(label="causal, one level", used_by="causal_denoising_grpo", name="causal_denoising_grpo", options={}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """Draws of a surrogate at the policy, and of its change to the moved policy on the same views; both (d, n)."""

    value: Float[Tensor, "d n"]
    change: Float[Tensor, "d n"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How a surrogate does under one rule, over completions drawn from the rule's exact law, in nats.

    bias: mean of surrogate less truth. distortion: standard deviation over completions of that difference's mean; a
    constant bias cancels in a ratio, this does not. deviation: standard deviation of one draw. rank: Spearman's rho
    with the truth over a batch of completions, one draw each. change: Pearson correlation of its change with the true
    change when all weights move a little.
    """

    label: str
    used_by: str
    bias: float
    distortion: float
    deviation: float
    rank: float
    change: float


def estimate(
    surrogate: Surrogate, policy: EnumerablePolicy, other: EnumerablePolicy, *, num_draws: int, seed: int
) -> Estimates:
    """Draw views of all completions and score them under both policies."""
    assert surrogate.name is not None
    objective = registry.build("objective", surrogate.name, surrogate.options)
    rollouts = policy.rollouts(policy.completions())
    generator = torch.Generator().manual_seed(seed)
    values, changes = [], []
    for _ in range(num_draws):
        views = objective.views(rollouts, policy.process, generator)
        now, then = (_weighted(views, each.view_log_probs(rollouts, views)) for each in (policy, other))
        values.append(now)
        changes.append(then - now)
    return Estimates(value=torch.stack(values), change=torch.stack(changes))


def compare(surrogate: Surrogate, drawn: Estimates, truth: Law, moved: Law, *, seed: int) -> Row:
    """Judge the draws against the exact law of a rule, before and after the policy moved."""
    weight = truth.log_prob.exp()
    error = drawn.value.mean(0) - truth.log_prob
    variance = drawn.value.var(0) if len(drawn.value) > 1 else torch.zeros_like(error)
    generator = torch.Generator().manual_seed(seed)
    index = torch.multinomial(weight, BATCH, replacement=True, generator=generator)
    correlations: list[Any] = [spearmanr(each[index], truth.log_prob[index]) for each in drawn.value]
    ranks = [float(each.statistic) for each in correlations]
    change = moved.log_prob - truth.log_prob
    return Row(
        label=surrogate.label,
        used_by=surrogate.used_by,
        bias=_mean(error, weight),
        distortion=_spread(error, weight),
        deviation=_mean(variance, weight) ** 0.5,
        rank=sum(ranks) / len(ranks),
        change=sum(_correlation(each, change, weight) for each in drawn.change) / len(drawn.change),
    )


def compare_path(surrogate: Surrogate, truth: Law, moved: Law, *, seed: int) -> Row:
    """The recorded path's log-probability, and its change on the recorded canvases: exact moments, nothing is drawn."""
    estimates = Estimates(value=truth.path_mean[None], change=truth.path_change[None])
    row = compare(surrogate, estimates, truth, moved, seed=seed)
    deviation = _mean(truth.path_var.clamp(min=0), truth.log_prob.exp()) ** 0.5
    return Row(**{**{name: getattr(row, name) for name in Row.__slots__}, "deviation": deviation})


def all_rows(drawn: dict[str, Estimates], truth: Law, moved: Law, *, seed: int) -> list[Row]:
    """One row a surrogate; drawn: by label."""
    return [
        compare_path(item, truth, moved, seed=seed)
        if item.name is None
        else compare(item, drawn[item.label], truth, moved, seed=seed)
        for item in SURROGATES
    ]


def _weighted(views: Views, terms: Float[Tensor, "k n l"]) -> Float[Tensor, " n"]:
    return (views.weight * torch.where(views.score, terms, 0.0)).sum((0, 2)).double()


def _mean(values: Float[Tensor, " n"], weight: Float[Tensor, " n"]) -> float:
    return float((values * weight).sum() / weight.sum())


def _spread(error: Float[Tensor, " n"], weight: Float[Tensor, " n"]) -> float:
    return _mean((error - _mean(error, weight)).square(), weight) ** 0.5


def _correlation(one: Float[Tensor, " n"], two: Float[Tensor, " n"], weight: Int[Tensor, " n"]) -> float:
    one, two = one - _mean(one, weight), two - _mean(two, weight)
    scale = (_mean(one.square(), weight) * _mean(two.square(), weight)) ** 0.5
    return _mean(one * two, weight) / scale if scale > 0 else 0.0
