"""Every method agrees with frozen values of an independent implementation (tests/objectives/reference.py) to 1e-6."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from dllm_rl import registry
from dllm_rl.records.types import Answers, Rollouts, Views
from tests.objectives import reference
from tests.objectives.losses import loss_of
from tests.objectives.reference_inputs import (
    GROUPS,
    LENGTH,
    LENGTHS,
    STEP_WEIGHT,
    VALID,
    Inputs,
    change,
    make_inputs,
    rows,
    total_change,
)

CASES = json.loads(reference.FIXTURES.read_text())


def rollouts_of(case: dict[str, Any]) -> Rollouts:
    mask = torch.arange(LENGTH) < torch.tensor(LENGTHS)[:, None]
    ids = mask.long()
    valid, group_ids = torch.tensor(VALID), torch.tensor(GROUPS)
    score = torch.tensor(case["score"]).transpose(0, 1)
    zeros = torch.zeros(score.shape)
    answers = Answers(ids=zeros.long(), score=score, confidence=zeros, certainty=zeros, is_asked=score.any(-1))
    return Rollouts(
        prompt_ids=ids,
        prompt_mask=mask,
        completion_ids=ids,
        completion_mask=mask,
        rewards=torch.tensor(case["rewards"], dtype=torch.float64),
        group_ids=group_ids,
        valid=valid,
        trajectory=None,
        answers=answers,
        step_rewards=torch.tensor(case["step_rewards"], dtype=torch.float64),
        totals=Rollouts.count_totals(valid, group_ids, mask),
    )


def test_every_method_has_reference_values() -> None:
    built_in = {name for name, cls in registry.items("objective") if cls.__module__.startswith("objectives.")}
    assert built_in == reference.METHODS.keys()


@pytest.mark.parametrize("name", reference.METHODS)
def test_loss_and_gradient(name: str) -> None:
    case = CASES[name]
    rollouts = rollouts_of(case)
    score = torch.tensor(case["score"])
    new, old, ref, weight, expected = (
        torch.tensor(case[key], dtype=torch.float64) for key in ("new", "old", "ref", "weight", "gradient")
    )
    views = Views(tokens=rollouts.completion_ids.expand(score.shape), score=score, weight=weight)
    if name in reference.STEPWISE:
        step = torch.arange(len(score))[:, None].expand(-1, rollouts.num_rows)
        views = replace(views, step=step, loss_weight=STEP_WEIGHT * score)
    if name in reference.AVERAGING:
        views = replace(views, loss_weight=torch.full_like(weight, 1 / len(weight)))
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
    inputs = make_inputs(num_views, seed, hides_all=hides_all, spread=spread)
    assert inputs.new == CASES[name]["new"]
    assert formula(inputs, inputs.new, inputs.new) == pytest.approx(CASES[name]["loss"], abs=1e-12)


def tokens(x: Inputs) -> list[float]:
    return [change(x, x.new, x.old, b, i) for b in rows() for i in range(LENGTHS[b])]


def sequences(x: Inputs) -> list[float]:
    return [total_change(x, x.new, x.old, b) for b in rows()]


def means(x: Inputs) -> list[float]:
    return [d / LENGTHS[b] for d, b in zip(sequences(x), rows(), strict=True)]


def cells(x: Inputs) -> list[list[float]]:
    """What each view scores of each row, where it scores anything."""
    found = [
        [x.new[k][b][i] - x.old[k][b][i] for i in range(LENGTH) if x.score[k][b][i]]
        for k in range(len(x.new))
        for b in rows()
    ]
    return [each for each in found if each]


def events(x: Inputs) -> list[float]:
    return [d for each in cells(x) for d in each]


def steps(x: Inputs) -> list[float]:
    return [sum(each) for each in cells(x)]


# Method: (what one ratio spans, band). Ratios of the fixture lie inside it, above it, and (but for the cap) below it.
BANDS: dict[str, tuple[Callable[[Inputs], list[float]], float, float]] = {
    **dict.fromkeys(("grpo", "dr_grpo", "ar_surrogate_grpo", "causal_denoising_grpo", "unigrpo"), (tokens, 0.8, 1.2)),
    "dapo": (tokens, 0.8, 1.28),
    "coupled_grpo": (tokens, 0.5, 1.5),
    "cispo": (tokens, 0.0, 5.0),
    "rloo": (sequences, 0.8, 1.2),
    **dict.fromkeys(("espo", "informed_espo", "stable_drl"), (means, 0.8, 1.2)),
    "gdsd": (means, 1 / 1.2, 1.2),
    "block_ebpo": (means, 0.8, 1.28),
    **dict.fromkeys(("egspo", "egspo_sa"), (steps, 0.8, 1.2)),
    **dict.fromkeys(("cj_grpo", "tracerl", "agrpo", "just_grpo", "mask_aware_grpo", "mdpo"), (events, 0.8, 1.2)),
}


@pytest.mark.parametrize("name", BANDS)
def test_fixtures_reach_both_sides_of_the_clip(name: str) -> None:
    x = Inputs(**{key: CASES[name][key] for key in Inputs.__dataclass_fields__})
    span, low, high = BANDS[name]
    ratios = [math.exp(d) for d in span(x)]
    assert any(ratio > high for ratio in ratios) and any(low < ratio < high for ratio in ratios)
    assert any(ratio < low for ratio in ratios) or low == 0
