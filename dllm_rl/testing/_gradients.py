"""Properties of an objective's gradient: the plain policy gradient on policy, and what gives none.

Legend: b rows, l canvas, k views.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from dllm_rl.testing._case import Case, close, noise, spread


def on_policy(case: Case) -> None:
    """At the weights that sampled, the ratio is exactly 1 and the KL exactly 0, on a second forward of the policy."""
    new, again = case.score(case.rollouts, case.views), case.score(case.rollouts, case.views)
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
    new = case.score(case.rollouts, case.views)
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
    new = case.score(case.rollouts, case.views)
    gradient = case.gradient(case.inputs(new, new))
    advantages = spread(case.advantages, case.views)
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
    new = case.score(case.rollouts, case.views)
    inputs = replace(case.inputs(new, new), rollouts=rollouts, advantages=case.objective.advantages(rollouts))
    for size in (0.0, 0.1, 1.0):
        gradient = case.gradient(replace(inputs, old=new + size * noise(case)))
        assert bool((gradient.abs() <= 1e-6).all()), f"the largest gradient is {float(gradient.abs().max()):.2g}"


def flat_groups(case: Case) -> None:
    """Rows without advantage have a gradient off policy exactly where the objective says so (needs_flat_groups)."""
    new = case.score(case.rollouts, case.views)
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
    new = case.score(case.rollouts, case.views)
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
