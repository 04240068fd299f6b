"""One objective on one policy, as the properties of `dllm_rl.testing.objective` see it, and how they compare tensors.

Legend: b rows, l canvas, k views.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.records.types import Loss, LossInputs, Rollouts, Views

RELATIVE, ABSOLUTE = 1e-5, 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One objective on one policy and its rollouts, with the views of inner step 0."""

    objective: Any
    policy: Any
    rollouts: Rollouts
    views: Views
    advantages: Tensor

    def draw(self, rollouts: Rollouts, seed: int = 0) -> Views:
        """Views from a generator of this seed."""
        return self.objective.views(rollouts, self.policy.process, torch.Generator().manual_seed(seed))

    def score(self, rollouts: Rollouts, views: Views) -> Float[Tensor, "k b l"]:
        """Scores without gradient."""
        with torch.no_grad():
            return self.policy.view_log_probs(rollouts, views)

    def inputs(self, new: Tensor, old: Tensor) -> LossInputs:
        """What the loss is given at these scores, with a reference policy equal to the old one where one is wanted."""
        return LossInputs(
            rollouts=self.rollouts,
            views=self.views,
            new=new,
            old=old,
            ref=old if self.objective.needs_ref else None,
            advantages=self.advantages,
        )

    def loss(self, inputs: LossInputs) -> Loss:
        """The loss as the trainer calls it: without old scores where the objective declares that it needs none."""
        return self.objective.loss(inputs if self.objective.needs_old else replace(inputs, old=None))

    def gradient(self, inputs: LossInputs) -> Float[Tensor, "k b l"]:
        """Gradient of the loss with respect to the scores `new`."""
        leaf = inputs.new.detach().clone().requires_grad_()
        self.loss(replace(inputs, new=leaf)).value.backward()
        assert leaf.grad is not None
        return leaf.grad


def off_policy(case: Case) -> tuple[Tensor, Tensor]:
    """Scores at the weights that sampled, and old scores that differ from them at random."""
    new = case.score(case.rollouts, case.views)
    return new, new + noise(case)


def noise(case: Case) -> Tensor:
    """Normal deviations of .5 at the scored entries, the same for equal shapes."""
    generator = torch.Generator().manual_seed(2)
    return 0.5 * torch.randn(case.views.score.shape, generator=generator) * case.views.score


def spread(advantages: Tensor, views: Views) -> Tensor:
    """Advantages in the shape of the scores: (b,), (b, s) read at the views' steps, or (b, l)."""
    if advantages.dim() == 1:
        return advantages[None, :, None].expand_as(views.weight)
    if views.step is not None:
        return advantages.gather(1, views.step.T).T[..., None].expand_as(views.weight)
    return advantages[None].expand_as(views.weight)


def parameter_gradient(case: Case, score: Callable[[], Tensor]) -> list[Tensor]:
    """Gradient of the on-policy loss with respect to the policy's parameters."""
    new = score()
    value = case.loss(case.inputs(new, new.detach())).value
    parameters = [p for p in case.policy.model.parameters() if p.requires_grad]
    parts = torch.autograd.grad(value, parameters, allow_unused=True)
    return [torch.zeros_like(p) if part is None else part for p, part in zip(parameters, parts, strict=True)]


def close(given: Tensor, expected: Tensor, what: str) -> None:
    """Fail where two tensors differ by more than rounding, relative to the largest value."""
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    error = float((given - expected).abs().max()) if expected.numel() else 0.0
    assert error <= RELATIVE * scale + ABSOLUTE, f"{what}: off by {error:.3g} where the largest value is {scale:.3g}"


def random_state() -> tuple[Any, ...]:
    """Every global random state that a view or a loss might touch."""
    numpy_state: Any = np.random.get_state()
    return torch.get_rng_state().tolist(), numpy_state[1].tolist(), numpy_state[2], random.getstate()
