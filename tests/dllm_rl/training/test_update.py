"""One step's update: metrics do not depend on micro-batches, and no score is computed that nobody reads."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.types import Rollouts, Views
from dllm_rl.registry import families_of
from dllm_rl.testing.policies import sampled
from dllm_rl.training.ranks import ALONE
from dllm_rl.training.reference import reference_of
from dllm_rl.training.update import Targets, Updater

NAMES = registry.names("objective")


def family_of(objective: Any) -> str:
    families = families_of(type(objective))
    return "masked" if "masked" in families else families[0]


def updated(
    objective: Any, rollouts: Rollouts, policy: BasePolicy, *, batch_rows: int = 64, targets: Targets | None = None
) -> dict[str, float]:
    """Metrics of two inner steps, where the method allows them, of SGD on a copy of the policy."""
    policy = copy.copy(policy)
    policy.model = copy.deepcopy(policy.model)
    updater = Updater(
        policy=policy,
        objective=objective,
        reference=reference_of(policy) if objective.needs_ref else None,
        optimiser=torch.optim.SGD(policy.model.parameters(), lr=0.1),
        ranks=ALONE,
        seed=0,
        inner_steps=objective.max_inner_steps or 2,
        batch_rows=batch_rows,
        max_grad_norm=1.0,
        targets=targets or Targets(),
    )
    return updater.update(0, rollouts, rate=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_metrics_do_not_depend_on_micro_batches(name: str) -> None:
    objective = registry.get("objective", name)()
    policy, rollouts = sampled(family_of(objective))
    whole = updated(objective, rollouts, policy, batch_rows=1000)
    for batch_rows in (1, 7):
        parts = updated(objective, rollouts, policy, batch_rows=batch_rows)
        assert parts == pytest.approx(whole, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "targets", "num_passes"),
    [
        ("grpo", {"prompt_mask_share": 0.15}, Targets(), 3),
        ("advantage_weighted_denoising", {}, Targets(), 2),
        ("advantage_weighted_denoising", {}, Targets(log_ratio=1e9), 3),
        # The hidden canvas is the same at every inner step.
        ("grpo", {}, Targets(), 2),
        ("wd1", {}, Targets(log_ratio=1e9), 2),
    ],
)
def test_old_scores_are_computed_where_something_reads_them(
    name: str, options: dict[str, float], targets: Targets, num_passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two inner steps: two passes with gradient, and one for old scores that are not those of the first forward."""
    policy, rollouts = sampled("masked")
    score, sizes = type(policy).view_log_probs, []

    def counted(self: BasePolicy, rollouts: Rollouts, views: Views) -> Tensor:
        sizes.append(rollouts.num_rows * views.num_views)
        return score(self, rollouts, views)

    monkeypatch.setattr(type(policy), "view_log_probs", counted)
    objective = registry.build("objective", name, {"beta": 0.0, **options})
    metrics = updated(objective, rollouts, policy, targets=targets)
    assert sum(sizes) == num_passes * metrics["rows_updated"]


def test_old_scores_of_the_first_forward_are_those_of_a_forward_of_their_own() -> None:
    policy, rollouts = sampled("masked")
    objective = registry.build("objective", "grpo", {"beta": 0.0})
    shared = updated(objective, rollouts, policy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Views, "equals", lambda self, other: False)
        apart = updated(objective, rollouts, policy)
    assert shared["ratio_dev"] > 0
    assert shared == pytest.approx(apart, rel=1e-4, abs=1e-6)


def test_a_group_with_one_row_left_does_not_stop_mdpo() -> None:
    """With a penalty such a row still has a gradient, and so it is passed on alone."""
    policy, rollouts = sampled("masked")
    first = rollouts.group_ids == rollouts.group_ids[0]
    valid = rollouts.valid & (~first | (first.cumsum(0) == 1))
    totals = Rollouts.count_totals(valid, rollouts.group_ids, rollouts.completion_mask)
    lost = replace(rollouts, valid=valid, totals=totals)
    assert updated(registry.build("objective", "mdpo", {"beta": 0.02}), lost, policy)["rows_updated"] == valid.sum()


def with_a_flat_group(rollouts: Rollouts) -> Rollouts:
    """The rollouts, the rewards of their first group made equal."""
    is_flat = rollouts.group_ids == rollouts.group_ids[0]
    step_rewards = rollouts.step_rewards
    if step_rewards is not None:
        step_rewards = torch.where(is_flat[:, None], 0.5, step_rewards)
    return replace(rollouts, rewards=torch.where(is_flat, 0.5, rollouts.rewards), step_rewards=step_rewards)


def has_penalty(name: str) -> bool:
    try:
        registry.build("objective", name, {"beta": 1e-9})
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_leaving_out_rows_without_gradient_changes_no_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a penalty that is next to nothing: losses are divided by all valid rows, flat groups included."""
    cls = registry.get("objective", name)
    objective = cls(beta=0.0)
    policy, rollouts = sampled(family_of(objective))
    rollouts = with_a_flat_group(rollouts)
    left_out = updated(objective, rollouts, policy)
    assert objective.needs_flat_groups or left_out["rows_filtered"] > 1
    if has_penalty(name):
        computed = updated(cls(beta=1e-9), rollouts, policy)
    else:
        monkeypatch.setattr(cls, "needs_flat_groups", True)
        computed = updated(objective, rollouts, policy)
    assert computed["rows_updated"] == rollouts.valid.sum()
    for metric in ("loss", "grad_norm"):
        assert left_out[metric] == pytest.approx(computed[metric], rel=1e-4, abs=1e-6), metric
