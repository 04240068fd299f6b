"""Informed masks: priorities are what the trajectory says, and the law of the masks is that of the paper."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.types import Prompts, Rollouts, Views
from objectives.informed_espo import InformedESPO, downstream, priorities
from tests.examples import example

WINDOW = 2


def certainty_at(policy: BasePolicy, rollouts: Rollouts, canvas: Tensor) -> Tensor:
    prompts = Prompts(ids=rollouts.prompt_ids, mask=rollouts.prompt_mask, row_ids=torch.arange(rollouts.num_rows))
    return policy.logits(prompts, canvas).softmax(-1).amax(-1)


@torch.no_grad()
def test_a_priority_sums_the_changes_of_confidence_at_near_columns_that_stay_open() -> None:
    item = example("masked")
    policy, rollouts = item.policy, item.rollouts
    record = rollouts.trajectory
    assert record is not None and record.canvases is not None
    canvases, written = record.canvases, record.commit_step
    found = priorities(rollouts, WINDOW)
    expected = torch.zeros_like(found)
    for row in range(rollouts.num_rows):
        for column in range(canvases.shape[2]):
            step = int(written[row, column])
            if step < 0 or torch.equal(canvases[row, step + 1], canvases[row, -1]):
                continue
            before, after = (certainty_at(policy, rollouts, canvases[:, at])[row].tolist() for at in (step, step + 1))
            is_open = (canvases[row, step + 1] == policy.mask_id).tolist()
            near = [j for j in range(canvases.shape[2]) if abs(j - column) <= WINDOW and is_open[j]]
            expected[row, column] = sum(abs(after[j] - before[j]) for j in near)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert int((expected > 1e-3).sum()) > rollouts.num_rows


def masks(objective: InformedESPO, num_rows: int) -> tuple[Rollouts, Views]:
    """Views of one completion, many times over."""
    item = example("masked")
    rows = item.rollouts.completion_mask.sum(-1).argmax().repeat(num_rows)
    rollouts = item.rollouts.rows(rows)
    return rollouts, objective.views(rollouts, item.policy.process, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sharpness", [0.0, 2.0])
def test_columns_are_hidden_without_replacement_by_their_odds(sharpness: float) -> None:
    objective = InformedESPO(sharpness=sharpness, window=WINDOW, num_draws=1)
    rollouts, views = masks(objective, 20_000)
    item = example("masked")
    member = item.policy.process.units(rollouts)
    columns = member[0].nonzero().flatten().tolist()
    odds = (sharpness * downstream(priorities(rollouts, WINDOW), member))[0].exp().tolist()
    hidden = (views.tokens[0] == item.policy.mask_id) & member
    is_pair = hidden.sum(-1) == 2
    assert int(is_pair.sum()) > 1500
    total = sum(odds[column] for column in columns)
    for first, second in itertools.combinations(columns, 2):
        law = sum(odds[a] / total * odds[b] / (total - odds[a]) for a, b in ((first, second), (second, first)))
        share = float((hidden[is_pair, first] & hidden[is_pair, second]).float().mean())
        assert abs(share - law) < 4.5 * math.sqrt(law * (1 - law) / int(is_pair.sum()))


def test_counts_are_uniform_and_weights_those_of_uniform_masks() -> None:
    objective = InformedESPO(num_draws=4)
    rollouts, views = masks(objective, 8000)
    item = example("masked")
    member = item.policy.process.units(rollouts)
    total = int(member[0].sum())
    count = ((views.tokens == item.policy.mask_id) & member).sum(-1)
    for size in range(total + 1):
        law = 1 / (total + 1)
        share = float((count == size).float().mean())
        assert abs(share - law) < 4.5 * math.sqrt(law * (1 - law) / count.numel())
    weight = views.score * ((total + 1) / count.clamp(min=1) / 4)[..., None]
    torch.testing.assert_close(views.weight, weight)
    uniform = replace(objective, sharpness=0.0).views(rollouts, item.policy.process, torch.Generator().manual_seed(1))
    mean = uniform.weight.sum(0)[:, rollouts.completion_mask[0]]
    assert bool(((mean.mean(0) - 1).abs() < 4.5 * mean.std(0) / math.sqrt(8000)).all())


def test_without_differences_masks_are_uniform() -> None:
    member = torch.tensor([[True, True, False]])
    assert not downstream(torch.tensor([[0.3, 0.3, 9.0]]), member).any()
    assert downstream(torch.tensor([[0.1, 0.3, 9.0]]), member).tolist() == [[1.0, 0.0, 0.0]]
