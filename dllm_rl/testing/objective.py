"""The properties that every objective has on every family it declares, checked on small float32 policies.

`check_objective(objective)` raises `PropertyError` with the name of the property, the family and what to do. An
objective that breaks a property on purpose says so in its class attribute `exceptions` (name of the property: reason);
the suite then expects it to break. Legend: b rows, l canvas, k views.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.errors import DllmRlError
from dllm_rl.testing.toys import toy
from dllm_rl.types import Loss, Rollouts, Views

RELATIVE, ABSOLUTE = 1e-5, 1e-5


class PropertyError(AssertionError):
    """An objective that breaks a property, or one that declares a broken property which in fact holds."""


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
        return self.objective.views(rollouts, self.policy.corruption, torch.Generator().manual_seed(seed), 0)

    def score(self, rollouts: Rollouts, views: Views) -> Float[Tensor, "k b l"]:
        """Scores without gradient."""
        with torch.no_grad():
            return self.policy.view_log_probs(rollouts, views)

    def loss(self, rollouts: Rollouts, views: Views, new: Tensor, old: Tensor, advantages: Tensor) -> Loss:
        """The loss against a reference policy that equals the old one, where the objective wants a reference."""
        ref = old if self.objective.needs_ref else None
        return self.objective.loss(rollouts, views, new, old, ref, advantages)

    def gradient(self, new: Tensor, old: Tensor, advantages: Tensor) -> Float[Tensor, "k b l"]:
        """Gradient of the loss with respect to the scores `new`."""
        leaf = new.detach().clone().requires_grad_()
        self.loss(self.rollouts, self.views, leaf, old, advantages).value.backward()
        assert leaf.grad is not None
        return leaf.grad


def check_objective(
    objective: Any, *, policies: Sequence[tuple[Any, Rollouts]] | None = None, seed: int = 0
) -> list[tuple[str, str]]:
    """Check every property on every declared family. Returns the (family, property) pairs that were checked.

    policies: (policy, rollouts) pairs to check on; None takes the toys of the declared families.
    Raises PropertyError at the first property that does not hold.
    """
    if policies is None:
        toys = [toy(family, seed=seed) for family in objective.families]
        policies = [(item.policy, item.rollouts) for item in toys]
    checked = []
    for policy, rollouts in policies:
        for name, check in PROPERTIES.items():
            _check_one(objective, policy, rollouts, name, check)
            checked.append((policy.family, name))
    return checked


def _check_one(objective: Any, policy: Any, rollouts: Rollouts, name: str, check: Callable[[Case], None]) -> None:
    where = f"objective '{objective.name}' on the {policy.family} family, property '{name}'"
    is_exception = name in getattr(objective, "exceptions", {})
    try:
        check(_case(objective, policy, rollouts))
    except AssertionError as error:
        if not is_exception:
            raise PropertyError(f"{where}: {error}") from error
        return
    if is_exception:
        raise PropertyError(f"{where}: declared as an exception, but it holds. Remove it from `exceptions`.")


def _case(objective: Any, policy: Any, rollouts: Rollouts) -> Case:
    views = objective.views(rollouts, policy.corruption, torch.Generator().manual_seed(0), 0)
    return Case(
        objective=objective,
        policy=policy,
        rollouts=rollouts,
        views=views,
        advantages=objective.advantages(rollouts),
    )


def on_policy(case: Case) -> None:
    """At the weights that sampled, the ratio is exactly 1 and the KL exactly 0, on a second forward of the policy."""
    new, again = case.score(case.rollouts, case.views), case.score(case.rollouts, case.views)
    if not torch.equal(new, again):
        raise AssertionError(
            "the policy scores the same views differently twice. Live dropout? Score in eval mode (model.eval())."
        )
    metrics = case.loss(case.rollouts, case.views, new, again, case.advantages).metrics
    assert metrics.get("ratio_dev", 0.0) == 0.0, f"ratio_dev is {metrics['ratio_dev']}, not 0"
    assert metrics.get("kl", 0.0) == 0.0, f"kl is {metrics['kl']}, not 0"


def policy_gradient(case: Case) -> None:
    """At the weights that sampled, the gradient is -A times something free of A: the plain policy gradient.

    Twice the advantages give twice the gradient, and no row is moved by another row's advantage.
    """
    new = case.score(case.rollouts, case.views)
    once = case.gradient(new, new, case.advantages)
    _close(case.gradient(new, new, 2 * case.advantages), 2 * once, "gradient at twice the advantages")
    row = int(
        (case.advantages.flatten(1) if case.advantages.dim() > 1 else case.advantages[:, None]).abs().sum(1).argmax()
    )
    alone = torch.zeros_like(case.advantages)
    alone[row] = case.advantages[row]
    expected = torch.zeros_like(once)
    expected[:, row] = once[:, row]
    _close(case.gradient(new, new, alone), expected, f"gradient with the advantage of row {row} alone")


def sign_of_advantage(case: Case) -> None:
    """At the weights that sampled, the gradient has the sign of -A on scored entries, and is 0 on unscored ones."""
    new = case.score(case.rollouts, case.views)
    gradient = case.gradient(new, new, case.advantages)
    advantages = _spread(case.advantages, case.views)
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
    advantages = case.objective.advantages(rollouts)
    new = case.score(case.rollouts, case.views)
    ref = new if case.objective.needs_ref else None
    for size in (0.0, 0.1, 1.0):
        leaf = new.clone().requires_grad_()
        case.objective.loss(rollouts, case.views, leaf, new + size * _noise(case), ref, advantages).value.backward()
        assert leaf.grad is not None
        assert bool((leaf.grad.abs() <= 1e-6).all()), f"the largest gradient is {float(leaf.grad.abs().max()):.2g}"


def flat_groups(case: Case) -> None:
    """Rows without advantage have a gradient off policy exactly where the objective says so (needs_flat_groups)."""
    new = case.score(case.rollouts, case.views)
    other = new + 0.1 * _noise(case)
    leaf = new.clone().requires_grad_()
    ref = other if case.objective.needs_ref else None
    nothing = torch.zeros_like(case.advantages)
    case.objective.loss(case.rollouts, case.views, leaf, other, ref, nothing).value.backward()
    assert leaf.grad is not None
    has_gradient, says = bool((leaf.grad != 0).any()), case.objective.needs_flat_groups
    assert has_gradient == says, f"needs_flat_groups is {says}, but rows without advantage have " + (
        "a gradient, which the trainer would drop" if has_gradient else "no gradient"
    )


def same_generator(case: Case) -> None:
    """A generator of the same seed gives the same views, and no global random state is read or moved."""
    before = _random_state()
    first, second = case.draw(case.rollouts, 3), case.draw(case.rollouts, 3)
    assert before == _random_state(), "views() moves a global random state; draw from `generator` only"
    for item in fields(Views):
        left, right = getattr(first, item.name), getattr(second, item.name)
        is_same = torch.equal(left, right) if isinstance(left, Tensor) else left == right
        assert is_same, f"two draws from generators of one seed differ in `{item.name}`"


def permutation(case: Case) -> None:
    """The order of rows, and what the groups are called, change nothing."""
    order = torch.randperm(case.rollouts.num_rows, generator=torch.Generator().manual_seed(1))
    shuffled = case.rollouts.rows(order)
    _close(case.objective.advantages(shuffled), case.advantages[order], "advantages of permuted rows")
    renamed = replace(case.rollouts, group_ids=100 - case.rollouts.group_ids)
    _close(case.objective.advantages(renamed), case.advantages, "advantages of renamed groups")
    views = case.views.rows(order)
    new, old = _off_policy(case)
    _close(
        case.loss(shuffled, views, new[:, order], old[:, order], case.advantages[order]).value,
        case.loss(case.rollouts, case.views, new, old, case.advantages).value,
        "loss of permuted rows",
    )


def micro_batches(case: Case) -> None:
    """Losses of micro-batches add up to the loss of the whole step; whole groups together where group_coupled."""
    new, old = _off_policy(case)
    whole = case.loss(case.rollouts, case.views, new, old, case.advantages).value
    if case.objective.group_coupled:
        ids = case.rollouts.group_ids
        parts = [(ids == group).nonzero()[:, 0] for group in ids.unique()]
    else:
        parts = list(torch.arange(case.rollouts.num_rows).tensor_split(3))
    losses = [
        case.loss(case.rollouts.rows(i), case.views.rows(i), new[:, i], old[:, i], case.advantages[i]).value
        for i in parts
    ]
    _close(torch.stack(losses).sum(), whole, "sum of the micro-batch losses (divide by rollouts.totals)")


def view_chunks(case: Case) -> None:
    """A separable loss is the sum of the losses of its views."""
    if not case.objective.separable:
        return
    new, old = _off_policy(case)
    whole = case.loss(case.rollouts, case.views, new, old, case.advantages).value
    losses = [
        case.loss(case.rollouts, case.views.views(i), new[i], old[i], case.advantages).value
        for i in torch.arange(case.views.num_views).tensor_split(2)
        if len(i)
    ]
    _close(torch.stack(losses).sum(), whole, "sum of the losses of view chunks (declared separable)")


def two_passes(case: Case) -> None:
    """Scoring without gradient and then going backward chunk by chunk gives the gradient of one joint pass."""
    joint = _parameter_gradient(case, lambda: case.policy.view_log_probs(case.rollouts, case.views))
    new = case.score(case.rollouts, case.views)
    leaf_gradient = case.gradient(new, new, case.advantages)
    parameters = [p for p in case.policy.model.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in parameters]
    for view in torch.arange(case.views.num_views):
        scores = case.policy.view_log_probs(case.rollouts, case.views.views(view[None]))
        parts = torch.autograd.grad(scores, parameters, leaf_gradient[view[None]], allow_unused=True)
        total = [t if part is None else t + part for t, part in zip(total, parts, strict=True)]
    for one, two in zip(joint, total, strict=True):
        _close(two, one, "gradient of the policy's parameters in two passes")


def left_padding(case: Case) -> None:
    """More padding on the left of the prompt changes nothing."""
    pad = (3, 0)
    ids = torch.nn.functional.pad(case.rollouts.prompt_ids, pad, value=case.policy.corruption.pad_id)
    mask = torch.nn.functional.pad(case.rollouts.prompt_mask, pad, value=False)
    views = case.views
    if views.prompt_tokens is not None:
        views = replace(views, prompt_tokens=torch.nn.functional.pad(views.prompt_tokens, pad))
    padded = replace(case.rollouts, prompt_ids=ids, prompt_mask=mask)
    old = case.score(case.rollouts, case.views) + _noise(case)
    _close(
        case.loss(padded, views, case.score(padded, views), old, case.advantages).value,
        case.loss(case.rollouts, case.views, case.score(case.rollouts, case.views), old, case.advantages).value,
        "loss with more left padding",
    )


def tail(case: Case) -> None:
    """What stands after EOS has no influence."""
    ids = case.rollouts.completion_ids
    is_eos = ids == case.policy.corruption.eos_id
    is_tail = is_eos.cumsum(-1) - is_eos.long() > 0
    changed = replace(case.rollouts, completion_ids=torch.where(is_tail, ids.max(), ids))
    old = case.score(case.rollouts, case.views) + _noise(case)
    views = case.draw(changed)
    _close(
        case.loss(changed, views, case.score(changed, views), old, case.advantages).value,
        case.loss(case.rollouts, case.views, case.score(case.rollouts, case.views), old, case.advantages).value,
        "loss with other tokens after EOS",
    )


def purity(case: Case) -> None:
    """The loss reads no randomness, changes none of its arguments, and its metrics are finite Python floats."""
    new, old = _off_policy(case)
    before, copies = _random_state(), (new.clone(), old.clone(), case.advantages.clone())
    first = case.loss(case.rollouts, case.views, new, old, case.advantages)
    second = case.loss(case.rollouts, case.views, new, old, case.advantages)
    assert torch.equal(first.value, second.value), "two calls with the same arguments differ"
    assert before == _random_state(), "loss() moves a global random state"
    for name, copy, given in zip(("new", "old", "advantages"), copies, (new, old, case.advantages), strict=True):
        assert torch.equal(copy, given), f"loss() changes `{name}` in place"
    for name, value in first.metrics.items():
        assert type(value) is float, f"metric {name} is a {type(value).__name__}, not a float"
        assert math.isfinite(value), f"metric {name} is {value}"


def numerics(case: Case) -> None:
    """Far off policy the loss and its gradient stay finite; a log-probability of -inf gives that or a named error."""
    new = case.score(case.rollouts, case.views)
    for shift in (-60.0, 60.0):
        gradient = case.gradient(new + shift * case.views.score, new, case.advantages)
        assert bool(gradient.isfinite().all()), f"the gradient is not finite at log-ratios of {shift:+.0f} per token"
    broken = new.clone()
    broken[tuple(case.views.score.nonzero()[0])] = -torch.inf
    try:
        value = case.loss(case.rollouts, case.views, broken, new, case.advantages).value
    except DllmRlError:
        return
    assert bool(value.isfinite()), "a log-probability of -inf makes the loss non-finite; raise NonFiniteError instead"


def invalid_rows(case: Case) -> None:
    """A row lost to the environment has no gradient, and its reward moves no baseline."""
    valid = case.rollouts.valid.clone()
    lost = int(valid.nonzero()[0])
    valid[lost] = False
    step_rewards = case.rollouts.step_rewards
    other = replace(case.rollouts, valid=valid)
    rewards = case.rollouts.rewards.clone()
    rewards[lost] = torch.nan
    if step_rewards is not None:
        step_rewards = step_rewards.clone()
        step_rewards[lost] = 99.0
    garbled = replace(other, rewards=rewards, step_rewards=step_rewards)
    advantages = case.objective.advantages(garbled)
    _close(advantages, case.objective.advantages(other), "advantages with a lost row of another reward")
    assert bool((advantages[lost] == 0).all()), "a lost row has an advantage"
    new = case.score(case.rollouts, case.views)
    leaf = new.clone().requires_grad_()
    ref = new - 0.2 if case.objective.needs_ref else None
    case.objective.loss(garbled, case.views, leaf, new - 0.1, ref, advantages).value.backward()
    assert leaf.grad is not None
    assert bool((leaf.grad[:, lost] == 0).all()), "a lost row has a gradient"


def flags(case: Case) -> None:
    """The class says what it is, in terms that the trainer knows, and the fields it requires exist."""
    objective = case.objective
    assert objective.level in ("token", "step", "sequence"), f"level is {objective.level!r}"
    assert isinstance(objective.paper, str), "paper is no text"
    known = {item.name for item in fields(Rollouts)}
    unknown = set(objective.requires) - known
    assert not unknown, f"requires names no field of Rollouts: {sorted(unknown)}"
    assert objective.needs_old in (True, False)
    assert objective.max_inner_steps is None or objective.max_inner_steps >= 1


PROPERTIES: dict[str, Callable[[Case], None]] = {
    check.__name__: check
    for check in (
        flags,
        on_policy,
        policy_gradient,
        sign_of_advantage,
        equal_rewards,
        flat_groups,
        same_generator,
        permutation,
        micro_batches,
        view_chunks,
        two_passes,
        left_padding,
        tail,
        purity,
        numerics,
        invalid_rows,
    )
}


def _off_policy(case: Case) -> tuple[Tensor, Tensor]:
    new = case.score(case.rollouts, case.views)
    return new, new + _noise(case)


def _noise(case: Case) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return 0.5 * torch.randn(case.views.score.shape, generator=generator) * case.views.score


def _spread(advantages: Tensor, views: Views) -> Tensor:
    """Advantages in the shape of the scores: (b,), (b, s) read at the views' steps, or (b, l)."""
    if advantages.dim() == 1:
        return advantages[None, :, None].expand_as(views.weight)
    if views.step is not None:
        return advantages.gather(1, views.step.T).T[..., None].expand_as(views.weight)
    return advantages[None].expand_as(views.weight)


def _parameter_gradient(case: Case, score: Callable[[], Tensor]) -> list[Tensor]:
    new = score()
    value = case.loss(case.rollouts, case.views, new, new.detach(), case.advantages).value
    parameters = [p for p in case.policy.model.parameters() if p.requires_grad]
    parts = torch.autograd.grad(value, parameters, allow_unused=True)
    return [torch.zeros_like(p) if part is None else part for p, part in zip(parameters, parts, strict=True)]


def _close(given: Tensor, expected: Tensor, what: str) -> None:
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    error = float((given - expected).abs().max()) if expected.numel() else 0.0
    assert error <= RELATIVE * scale + ABSOLUTE, f"{what}: off by {error:.3g} where the largest value is {scale:.3g}"


def _random_state() -> tuple[Any, ...]:
    numpy_state: Any = np.random.get_state()
    return torch.get_rng_state().tolist(), numpy_state[1].tolist(), numpy_state[2], random.getstate()
