"""One objective on one policy, and properties of its gradient and of its ELBO views.

On a canvas that is small enough every mask is enumerated; on any other the weights are checked.
Legend: b rows, l canvas, k views, n units of the canvas.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
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
    _kept: list[Tensor] = field(default_factory=list, repr=False, compare=False)

    @property
    def new(self) -> Float[Tensor, "k b l"]:
        """Scores of the views at the weights that sampled; the policy makes them once for all properties."""
        if not self._kept:
            self._kept.append(self.score(self.rollouts, self.views))
        return self._kept[0].clone()

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
    new = case.new
    return new, new + noise(case)


def noise(case: Case) -> Tensor:
    """Normal deviations of .5 at the scored entries, the same for equal shapes."""
    generator = torch.Generator().manual_seed(2)
    return 0.5 * torch.randn(case.views.score.shape, generator=generator) * case.views.score


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


def on_policy(case: Case) -> None:
    """At the weights that sampled, the ratio is exactly 1 and the KL exactly 0, on a second forward of the policy."""
    new, again = case.new, case.score(case.rollouts, case.views)
    if not torch.equal(new, again):
        raise AssertionError(
            "the policy scores the same views differently twice. Live dropout? Score in eval mode (model.eval())."
        )
    metrics = case.loss(case.inputs(new, again)).metrics
    assert metrics.get("ratio_dev", 0.0) == 0.0, f"ratio_dev is {metrics['ratio_dev']}, not 0"
    assert metrics.get("kl", 0.0) == 0.0, f"kl is {metrics['kl']}, not 0"


def policy_gradient(case: Case) -> None:
    """At the weights that sampled, the gradient is -A times something free of A: the plain policy gradient.

    Twice the advantages give twice the gradient, and no row is moved by another row's advantage.
    """
    new = case.new
    inputs = case.inputs(new, new)
    once = case.gradient(inputs)
    twice = case.gradient(replace(inputs, advantages=2 * case.advantages))
    close(twice, 2 * once, "gradient at twice the advantages")
    row = int(
        (case.advantages.flatten(1) if case.advantages.dim() > 1 else case.advantages[:, None]).abs().sum(1).argmax()
    )
    alone = torch.zeros_like(case.advantages)
    alone[row] = case.advantages[row]
    expected = torch.zeros_like(once)
    expected[:, row] = once[:, row]
    given = case.gradient(replace(inputs, advantages=alone))
    close(given, expected, f"gradient with the advantage of row {row} alone")


def sign_of_advantage(case: Case) -> None:
    """At the weights that sampled, the gradient has the sign of -A on scored entries, and is 0 on unscored ones."""
    new = case.new
    inputs = case.inputs(new, new)
    gradient, advantages = case.gradient(inputs), inputs.term_advantages
    assert bool((gradient[~case.views.score] == 0).all()), "unscored entries have a gradient"
    assert bool((gradient * advantages <= 0).all()), "an entry has a gradient of the sign of its advantage"
    assert bool((gradient != 0).any()), "no entry has a gradient"


def equal_rewards(case: Case) -> None:
    """Equal rewards in every group give a gradient of 0, off policy too."""
    rewards = case.rollouts.group_ids.float() / 10
    step_rewards = case.rollouts.step_rewards
    if step_rewards is not None:
        step_rewards = rewards[:, None] * torch.ones_like(step_rewards)
    rollouts = replace(case.rollouts, rewards=rewards, step_rewards=step_rewards)
    new = case.new
    inputs = replace(case.inputs(new, new), rollouts=rollouts, advantages=case.objective.advantages(rollouts))
    for size in (0.0, 0.1, 1.0):
        gradient = case.gradient(replace(inputs, old=new + size * noise(case)))
        assert bool((gradient.abs() <= 1e-6).all()), f"the largest gradient is {float(gradient.abs().max()):.2g}"


def flat_groups(case: Case) -> None:
    """Rows without advantage have a gradient off policy exactly where the objective says so (needs_flat_groups)."""
    new = case.new
    inputs = case.inputs(new, new + 0.1 * noise(case))
    gradient = case.gradient(replace(inputs, advantages=torch.zeros_like(case.advantages)))
    has_gradient, says = bool((gradient != 0).any()), case.objective.needs_flat_groups
    assert has_gradient == says, f"needs_flat_groups is {says}, but rows without advantage have " + (
        "a gradient, which the trainer would drop" if has_gradient else "no gradient"
    )


def penalty(case: Case) -> None:
    """The KL penalty is never negative, has no gradient at the reference, and off it pulls towards it."""
    if not case.objective.needs_ref:
        return
    new = case.new
    nothing = torch.zeros_like(case.advantages)
    for size in (0.0, 0.1, 1.0):
        away = size * noise(case)
        inputs = replace(case.inputs(new, new), ref=new - away, advantages=nothing)
        gradient, kl = case.gradient(inputs), case.loss(inputs).metrics.get("kl", 0.0)
        assert kl >= 0, f"the metric kl is {kl:.2g}"
        pull = float((gradient * away).sum())
        if size == 0:
            assert kl == 0 and bool((gradient == 0).all()), "the penalty has a value or a gradient at the reference"
        else:
            assert pull > 0, f"{size} away from the reference, the gradient's part along log new/ref is {pull:.2g}"


NUM_DRAWS, NUM_ERRORS, MAX_UNITS = 2000, 4.5, 8


def elbo_views(case: Case) -> None:
    """Where the objective claims it, its weighted terms are an unbiased estimate of the ELBO, row by row.

    Every scored position has expected weight 1; on a masked policy of at most 8 columns the expected sum is the mean
    over all masks, by enumeration. Flow: the weight of a noised position has the mean of the forward process.
    """
    if not case.objective.estimates_elbo:
        return
    row = int(case.rollouts.completion_mask.sum(-1).argmax())
    copies = case.rollouts.rows(torch.full((NUM_DRAWS,), row))
    drawn = case.draw(copies)
    share = drawn.weight if drawn.loss_weight is None else drawn.weight * drawn.loss_weight
    expected = case.policy.process.expected_weight
    if not drawn.term.is_log_prob:
        share = share * (drawn.tokens != copies.completion_ids)
    total = (share * drawn.score).sum(0)[:, case.rollouts.completion_mask[row]]
    error = float(((total.mean(0) - expected).abs() / (total.std(0) / math.sqrt(NUM_DRAWS) + 1e-6)).max())
    assert error < NUM_ERRORS, (
        f"the expected weight of a scored position is not {expected:.3g} ({error:.1f} standard errors off)"
    )
    process = case.policy.process
    if process.is_mean_over_masks and process.editable(copies)[0].sum() <= MAX_UNITS:
        estimates = (share * case.score(copies, drawn)).sum((0, 2))
        exact = enumerated_elbo(case, case.rollouts.rows(torch.tensor([row])))
        error = abs(float(estimates.mean()) - exact) / (float(estimates.std()) / math.sqrt(NUM_DRAWS) + 1e-6)
        assert error < NUM_ERRORS, f"the mean of the estimates is not the ELBO ({error:.1f} standard errors off)"


def enumerated_elbo(case: Case, one: Rollouts) -> float:
    """sum_n 1/(N+1) mean over masks of n columns of (N+1)/n times the log-probabilities that they hide."""
    member = case.policy.process.units(one)
    hidden = _subsets(member[0])
    size = hidden.sum(-1)
    num = int(member.sum())
    weight = torch.tensor([1 / (n * math.comb(num, n)) for n in size.tolist()])
    views = case.policy.process.hide_units(one, hidden[:, None], weight[:, None], torch.Generator())
    return float((views.weight * case.score(one, views)).sum())


def _subsets(member: Bool[Tensor, " n"]) -> Bool[Tensor, "k n"]:
    columns = member.nonzero()[:, 0].tolist()
    found = []
    for size in range(1, len(columns) + 1):
        for subset in itertools.combinations(columns, size):
            hidden = torch.zeros_like(member)
            hidden[list(subset)] = True
            found.append(hidden)
    return torch.stack(found)
