"""Truncated importance sampling (Ionides 2008) for draws of an engine, whose numbers are not quite the policy's.

A token that an engine drew with probability q, where the policy gives it p, stands for p / q draws of the policy. Its
gradient is multiplied by min(p / q, cap): the cap bounds the variance, and what it cuts off is bias. p is that of the
weights that sampled, so that importance ratios of the objective are what they are without an engine. Names as TRL's.

Legend: b rows, l canvas, k views.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy
from dllm_rl.protocols import Sampler
from dllm_rl.records.types import Rollouts, Views


def refuse_correction(cap: float | None, policy: type[BasePolicy], sampler: Sampler) -> None:
    """Raise ConfigError where there is nothing to correct, or draws have no exact probability."""
    if cap is not None and (sampler.approximation is None or not policy.is_exact):
        raise ConfigError(
            f"importance_sampling_cap={cap:g} was given; it corrects draws of an engine, which the sampler "
            f"'{sampler.name}' does not have here. Give the sampler 'ar' an engine (options.engine), or leave "
            "importance_sampling_cap out."
        )


def importance_weights(
    rollouts: Rollouts, views: Views, old: Float[Tensor, "k b l"], cap: float
) -> Float[Tensor, "b l"]:
    """Return the weight of each token, 1 where none is scored.

    Args:
        old: Log-probabilities under the policy that sampled, of the exact view.

    Raises ConfigError for other views.
    """
    if not views.is_exact:
        raise ConfigError(
            "importance_sampling_cap was given, and this objective scores other views than the exact one, so that no "
            "term is the probability of a draw. Leave it out, or return `process.exact(rollouts)` from `views`."
        )
    assert rollouts.trajectory is not None
    ratio = (old[0].detach().cpu() - rollouts.trajectory.log_probs).exp().clamp(max=cap)
    return torch.where(views.score[0], ratio, 1.0)


def correction_metrics(views: Views, weights: Float[Tensor, "b l"]) -> dict[str, float]:
    """Mean, smallest and largest weight of the scored tokens."""
    scored = weights[views.score[0]]
    if not scored.numel():
        return {}
    found = {"mean": scored.mean(), "min": scored.min(), "max": scored.max()}
    return {f"importance_sampling_ratio/{name}": float(value) for name, value in found.items()}
