"""`parity: true` takes a method's published settings, and what they make of a loss is what its public code computes.

Formulas are those of the public code, in plain loops. `python -m benchmarks.parity` compares with the code itself.
"""

from __future__ import annotations

from dataclasses import replace
from math import exp
from typing import Any

import pytest
import torch

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.records.types import Rollouts
from tests.examples import example
from tests.objectives.losses import loss_of

OBJECTIVES = dict(registry.items("objective"))
PUBLISHED = {name: cls.published for name, cls in OBJECTIVES.items() if vars(cls).get("published") is not None}
DIFFERENT = [name for name, options in PUBLISHED.items() if options]


def drawn(name: str, **options: Any) -> tuple[Any, Rollouts, Any, torch.Tensor, torch.Tensor]:
    """An objective at parity on the masked toy, its views, and scores of two policies."""
    objective = registry.build("objective", name, {"parity": True, **options})
    item = example("masked")
    views = objective.views(item.rollouts, item.policy.process, torch.Generator().manual_seed(0))
    with torch.no_grad():
        new = item.policy.view_log_probs(item.rollouts, views).double()
    noise = torch.randn(new.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return objective, item.rollouts, views, new, new + 0.3 * noise * views.score


def valid_rows(rollouts: Rollouts) -> list[int]:
    return rollouts.valid.nonzero().squeeze(1).tolist()


@pytest.mark.parametrize("name", PUBLISHED)
def test_parity_stands_for_the_published_options(name: str) -> None:
    given = registry.identity("objective", name, {"parity": True})
    assert given == registry.identity("objective", name, PUBLISHED[name])
    assert registry.build("objective", name, {"parity": True}) == registry.build("objective", name, PUBLISHED[name])
    assert (given == registry.identity("objective", name)) == (name not in DIFFERENT)


def test_an_option_beside_parity_comes_first() -> None:
    assert registry.build("objective", "cj_grpo", {"parity": True, "num_steps": 3}).num_steps == 3


def test_parity_is_true_or_left_out() -> None:
    with pytest.raises(ConfigError, match="parity=False was given; it should be true"):
        registry.build("objective", "espo", {"parity": False})


@pytest.mark.parametrize("name", sorted(OBJECTIVES.keys() - PUBLISHED.keys()))
def test_where_options_cannot_express_what_is_published_parity_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="its options cannot express a published behaviour"):
        registry.build("objective", name, {"parity": True})


@pytest.mark.parametrize(("name", "option"), [("espo", "scores_canvas"), ("spg", "counts")])
def test_an_option_that_came_later_leaves_older_results_valid(name: str, option: str) -> None:
    assert option not in registry.identity("objective", name)["options"]
    assert registry.identity("objective", name, {option: True})["options"][option] is True


def test_espo_counts_every_column_of_the_canvas() -> None:
    objective, rollouts, views, new, old = drawn("espo", beta=0.1)
    assert bool(views.score.any(0).all()) and not bool(rollouts.completion_mask.all())
    length, total = rollouts.completion_ids.shape[1], 0.0
    advantages = objective.advantages(rollouts)
    change = (views.weight * (new - old)).sum((0, 2))
    for b in valid_rows(rollouts):
        ratio, a = exp(float(change[b]) / length), float(advantages[b])
        total -= min(ratio * a, min(max(ratio, 0.8), 1.2) * a)
        total += 0.1 * float(change[b]) ** 2 / 2 / length
    given = loss_of(objective, rollouts, views, new, old, old)
    assert float(given.value) == pytest.approx(total / len(valid_rows(rollouts)), rel=1e-9)


def test_just_grpo_divides_by_the_length_of_the_canvas() -> None:
    objective, rollouts, views, new, old = drawn("just_grpo")
    length, total = rollouts.completion_ids.shape[1], 0.0
    assert views.num_views == length and bool((views.score.sum(0) == 1).all())
    advantages = objective.advantages(rollouts)
    for b in valid_rows(rollouts):
        for k, i in views.score[:, b].nonzero().tolist():
            ratio, a = exp(float(new[k, b, i] - old[k, b, i])), float(advantages[b])
            total -= min(ratio * a, min(max(ratio, 0.8), 1.2) * a) / length
    given = loss_of(objective, rollouts, views, new, old)
    assert float(given.value) == pytest.approx(total / len(valid_rows(rollouts)), rel=1e-9)


def test_spg_hides_a_uniform_number_and_weighs_by_its_share() -> None:
    item = example("masked")
    row = int(item.rollouts.completion_mask.sum(-1).argmax())
    many = item.rollouts.rows(torch.full((6000,), row))
    objective = registry.build("objective", "spg", {"parity": True})
    views = objective.views(many, item.policy.process, torch.Generator().manual_seed(0))
    total = int(item.policy.process.units(many)[0].sum())
    hidden = (views.tokens == item.policy.mask_id).sum(-1) - (views.tokens.shape[-1] - total)
    assert int(hidden.min()) == 1 and int(hidden.max()) == total
    shares = torch.bincount(hidden[0], minlength=total + 1)[1:] / 6000
    assert bool(((shares - 1 / total).abs() < 4 * (1 / total / 6000) ** 0.5).all())
    weight = (total / hidden)[..., None].expand_as(views.weight)
    torch.testing.assert_close(views.weight, torch.where(views.score, weight, 0.0))


def test_cj_grpo_is_the_mean_over_steps_of_the_mean_over_their_tokens() -> None:
    """Where all steps of a row commit equally many tokens."""
    item = example("masked")
    objective = registry.build("objective", "cj_grpo", {"parity": True})
    commit = item.rollouts.trajectory.commit_step
    even = [
        b
        for b in valid_rows(item.rollouts)
        if len(set(torch.bincount(commit[b][item.rollouts.completion_mask[b]]).tolist()) - {0}) == 1
    ]
    rollouts = item.rollouts.rows(torch.tensor(even))
    rollouts = replace(
        rollouts, totals=Rollouts.count_totals(rollouts.valid, rollouts.group_ids, rollouts.completion_mask)
    )
    views = objective.views(rollouts, item.policy.process, torch.Generator().manual_seed(0))
    with torch.no_grad():
        new = item.policy.view_log_probs(rollouts, views).double()
    old = new + 0.3 * torch.randn(new.shape, generator=torch.Generator().manual_seed(1)) * views.score
    advantages, total = objective.advantages(rollouts), 0.0
    for b in range(rollouts.num_rows):
        steps = [k for k in range(views.num_views) if bool(views.score[k, b].any())]
        for k in steps:
            columns = views.score[k, b].nonzero().squeeze(1).tolist()
            for i in columns:
                d, a = float(new[k, b, i] - old[k, b, i]), float(advantages[b])
                gain = min(exp(d) * a, min(max(exp(d), 0.8), 1.2) * a)
                total += (-gain + 0.04 * (exp(-d) - 1 + d)) / len(columns) / len(steps)
    given = loss_of(objective, rollouts, views, new, old, old)
    assert float(given.value) == pytest.approx(total / rollouts.num_rows, rel=1e-6)
