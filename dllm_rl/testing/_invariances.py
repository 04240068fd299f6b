"""Invariances of an objective: rows, groups, micro-batches, views, padding, what stands after EOS, random state.

Legend: b rows, l canvas, k views.
"""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from dllm_rl.records.canvas import until_first
from dllm_rl.records.types import Views
from dllm_rl.testing._case import Case, close, noise, off_policy, parameter_gradient, random_state


def same_generator(case: Case) -> None:
    """A generator of the same seed gives the same views, and no global random state is read or moved."""
    before = random_state()
    first, second = case.draw(case.rollouts, 3), case.draw(case.rollouts, 3)
    assert before == random_state(), "views() moves a global random state; draw from `generator` only"
    _same_views(first, second, "two draws from generators of one seed")


def _same_views(given: Views, expected: Views, what: str) -> None:
    for item in fields(Views):
        left, right = getattr(given, item.name), getattr(expected, item.name)
        is_same = torch.equal(left, right) if isinstance(left, Tensor) and isinstance(right, Tensor) else left == right
        assert is_same, f"{what} differ in `{item.name}`"


def permutation(case: Case) -> None:
    """The order of rows, and what the groups are called, change nothing."""
    order = torch.randperm(case.rollouts.num_rows, generator=torch.Generator().manual_seed(1))
    shuffled = case.rollouts.rows(order)
    close(case.objective.advantages(shuffled), case.advantages[order], "advantages of permuted rows")
    renamed = replace(case.rollouts, group_ids=100 - case.rollouts.group_ids)
    close(case.objective.advantages(renamed), case.advantages, "advantages of renamed groups")
    inputs = case.inputs(*off_policy(case))
    close(case.loss(inputs.rows(order)).value, case.loss(inputs).value, "loss of permuted rows")


def micro_batches(case: Case) -> None:
    """Losses of micro-batches add up to the loss of the whole step; whole groups together where group_coupled."""
    inputs = case.inputs(*off_policy(case))
    whole = case.loss(inputs).value
    if case.objective.group_coupled:
        ids = case.rollouts.group_ids
        parts = [(ids == group).nonzero()[:, 0] for group in ids.unique()]
    else:
        parts = list(torch.arange(case.rollouts.num_rows).tensor_split(3))
    losses = torch.stack([case.loss(inputs.rows(index)).value for index in parts])
    close(losses.sum(), whole, "sum of the micro-batch losses (divide by rollouts.totals)")


def two_passes(case: Case) -> None:
    """Scoring without gradient and then going backward chunk by chunk gives the gradient of one joint pass."""
    joint = parameter_gradient(case, lambda: case.policy.view_log_probs(case.rollouts, case.views))
    new = case.score(case.rollouts, case.views)
    leaf_gradient = case.gradient(case.inputs(new, new))
    parameters = [p for p in case.policy.model.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in parameters]
    for view in torch.arange(case.views.num_views):
        scores = case.policy.view_log_probs(case.rollouts, case.views.views(view[None]))
        parts = torch.autograd.grad(scores, parameters, leaf_gradient[view[None]], allow_unused=True)
        total = [t if part is None else t + part for t, part in zip(total, parts, strict=True)]
    for one, two in zip(joint, total, strict=True):
        close(two, one, "gradient of the policy's parameters in two passes")


def left_padding(case: Case) -> None:
    """More padding on the left of the prompt changes nothing: not the views that are drawn, and not the loss."""
    pad = (3, 0)
    ids = torch.nn.functional.pad(case.rollouts.prompt_ids, pad, value=case.policy.process.pad_id)
    mask = torch.nn.functional.pad(case.rollouts.prompt_mask, pad, value=False)
    views = case.views
    if views.prompt_tokens is not None:
        filled = torch.nn.functional.pad(views.prompt_tokens, pad, value=case.policy.process.pad_id)
        views = replace(views, prompt_tokens=filled)
    padded = replace(case.rollouts, prompt_ids=ids, prompt_mask=mask)
    _same_views(case.draw(padded), views, "views drawn with more left padding")
    old = case.score(case.rollouts, case.views) + noise(case)
    inputs = case.inputs(case.score(case.rollouts, case.views), old)
    other = replace(inputs, rollouts=padded, views=views, new=case.score(padded, views))
    close(case.loss(other).value, case.loss(inputs).value, "loss with more left padding")


def tail(case: Case) -> None:
    """What stands after EOS has no influence."""
    ids = case.rollouts.completion_ids
    is_tail = ~until_first(ids == case.policy.process.eos_id)
    changed = replace(case.rollouts, completion_ids=torch.where(is_tail, ids.max(), ids))
    old = case.score(case.rollouts, case.views) + noise(case)
    views = case.draw(changed)
    inputs = case.inputs(case.score(case.rollouts, case.views), old)
    other = replace(inputs, rollouts=changed, views=views, new=case.score(changed, views))
    close(case.loss(other).value, case.loss(inputs).value, "loss with other tokens after EOS")
