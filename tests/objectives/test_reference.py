"""The package agrees with frozen values of an independent implementation (tests/objectives/reference.py) to 1e-6."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from dllm_rl import registry
from dllm_rl.records.types import Rollouts, Views
from tests.objectives import reference
from tests.objectives.losses import loss_of

CASES = json.loads(reference.FIXTURES.read_text())


def rollouts_of(rewards: list[float]) -> Rollouts:
    mask = torch.arange(reference.LENGTH) < torch.tensor(reference.LENGTHS)[:, None]
    ids = mask.long()
    valid, group_ids = torch.tensor(reference.VALID), torch.tensor(reference.GROUPS)
    return Rollouts(
        prompt_ids=ids,
        prompt_mask=mask,
        completion_ids=ids,
        completion_mask=mask,
        rewards=torch.tensor(rewards, dtype=torch.float64),
        group_ids=group_ids,
        valid=valid,
        trajectory=None,
        totals=Rollouts.count_totals(valid, group_ids, mask),
    )


@pytest.mark.parametrize("name", reference.METHODS)
def test_loss_and_gradient(name: str) -> None:
    case = CASES[name]
    rollouts = rollouts_of(case["rewards"])
    score = torch.tensor(case["score"])
    new, old, ref, weight, expected = (
        torch.tensor(case[key], dtype=torch.float64) for key in ("new", "old", "ref", "weight", "gradient")
    )
    views = Views(tokens=rollouts.completion_ids.expand(score.shape), score=score, weight=weight)
    if name in reference.STEPWISE:
        step = torch.arange(len(score))[:, None].expand(-1, rollouts.num_rows)
        views = replace(views, step=step, loss_weight=reference.STEP_WEIGHT * score)
    objective = registry.get("objective", name)()
    leaf = new.clone().requires_grad_()
    loss = loss_of(objective, rollouts, views, leaf, old, ref if objective.needs_ref else None)
    loss.value.backward()
    assert float(loss.value.detach()) == pytest.approx(case["loss"], abs=1e-6)
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, expected, rtol=1e-6, atol=1e-6)
    assert float(expected.abs().max()) > 1e-3, "the case must have a gradient to compare"


@pytest.mark.parametrize("name", reference.METHODS)
def test_fixtures_are_what_the_reference_gives(name: str) -> None:
    formula, num_views, hides_all = reference.METHODS[name]
    seed, spread = list(reference.METHODS).index(name), reference.SPREAD.get(name, 0.3)
    inputs = reference.make_inputs(num_views, seed, hides_all=hides_all, spread=spread)
    assert inputs.new == CASES[name]["new"]
    assert formula(inputs, inputs.new, inputs.new) == pytest.approx(CASES[name]["loss"], abs=1e-12)


# Method: (what one ratio spans, band). Ratios of the fixture lie inside it, above it, and (but for the cap) below it.
BANDS = {
    "grpo": ("token", 0.8, 1.2),
    "dr_grpo": ("token", 0.8, 1.2),
    "dapo": ("token", 0.8, 1.28),
    "coupled_grpo": ("token", 0.5, 1.5),
    "cispo": ("token", 0.0, 5.0),
    "rloo": ("sequence", 0.8, 1.2),
    "espo": ("mean", 0.8, 1.2),
    "egspo": ("step", 0.8, 1.2),
    "block_ebpo": ("mean", 0.8, 1.28),
    "informed_espo": ("mean", 0.8, 1.2),
}


@pytest.mark.parametrize("name", BANDS)
def test_fixtures_reach_both_sides_of_the_clip(name: str) -> None:
    x = reference.Inputs(**{key: CASES[name][key] for key in ("new", "old", "ref", "score", "weight", "rewards")})
    level, low, high = BANDS[name]
    rows = reference.rows()
    if level == "token":
        places = [(b, i) for b in rows for i in range(reference.LENGTHS[b])]
        logs = [reference.change(x, x.new, x.old, b, i) for b, i in places]
    elif level == "step":
        scored = [[i for i in range(reference.LENGTH) if cells[b][i]] for b in rows for cells in x.score]
        steps = [(k, b) for b in rows for k in range(len(x.new))]
        logs = [
            sum(x.new[k][b][i] - x.old[k][b][i] for i in columns)
            for (k, b), columns in zip(steps, scored, strict=True)
            if columns
        ]
    else:
        logs = [reference.total_change(x, x.new, x.old, b) for b in rows]
        logs = [d / reference.LENGTHS[b] if level == "mean" else d for d, b in zip(logs, rows, strict=True)]
    ratios = [math.exp(d) for d in logs]
    assert any(ratio > high for ratio in ratios) and any(low < ratio < high for ratio in ratios)
    assert any(ratio < low for ratio in ratios) or low == 0
