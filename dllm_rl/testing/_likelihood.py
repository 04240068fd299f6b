"""The claim that views estimate the ELBO (`estimates_elbo`), against its definition.

On a canvas that is small enough every mask is enumerated; on any other the weights are checked.
Legend: b rows, l canvas, k views, n units of the canvas.
"""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Bool
from torch import Tensor

from dllm_rl.records.types import Rollouts
from dllm_rl.testing._case import Case

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
