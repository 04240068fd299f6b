"""Rows of equal input are forwarded once, and score as if each were alone: terms and gradients."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dllm_rl import registry
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.scoring import distinct_inputs
from dllm_rl.policies.sharing import share
from dllm_rl.records.types import Rollouts, Views
from dllm_rl.testing.policies import prompts_of, random_policy, sampled
from dllm_rl.training.micro_batches import micro_batches, num_distinct

FAMILIES = ("autoregressive", "masked", "block", "slot", "flow")
VIEWS: dict[str, Callable[[BasePolicy, Rollouts, torch.Generator], Views]] = {
    "exact": lambda policy, rollouts, _: policy.process.exact(rollouts),
    "one_step": lambda policy, rollouts, noise: policy.process.one_step(rollouts, noise),
    "masked_prompts": lambda policy, rollouts, noise: policy.process.one_step(rollouts, noise, prompt_mask_share=0.5),
    "elbo": lambda policy, rollouts, noise: policy.process.elbo(rollouts, noise),
    "quadrature": lambda policy, rollouts, noise: policy.process.quadrature(rollouts, noise),
    "replay": lambda policy, rollouts, noise: policy.process.replay(rollouts, noise),
    "some_steps": lambda policy, rollouts, noise: policy.process.replay(rollouts, noise, num_steps=2),
    "left_to_right": lambda policy, rollouts, noise: policy.process.left_to_right(rollouts, noise),
    "causal_clean": lambda policy, rollouts, _: policy.process.causal_clean(rollouts),
    "causal_noised": lambda policy, rollouts, noise: policy.process.causal_noised(rollouts, noise),
}
MISSING = {("autoregressive", "masked_prompts"), ("flow", "masked_prompts"), ("flow", "left_to_right")}
CASES = [(family, name) for family in FAMILIES for name in VIEWS if (family, name) not in MISSING]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@functools.cache
def doubled(family: str) -> tuple[BasePolicy, Rollouts]:
    """Groups in which every completion comes twice, prompts of different lengths, and a model in double precision."""
    policy, rollouts = sampled(family)
    policy = copy.copy(policy)
    policy.model = copy.deepcopy(policy.model).double()
    index = torch.arange(rollouts.num_rows)
    return policy, replace(rollouts.rows(torch.cat([index, index.flip(0)])), temperature=0.7)


def graded(
    policy: BasePolicy, rollouts: Rollouts, views: Views, rows: tuple[Tensor, ...]
) -> tuple[Tensor, list[Tensor]]:
    """Terms of rows scored in these parts, and the gradient of a weighted sum of them."""
    terms = torch.cat([policy.view_log_probs(rollouts.rows(index), views.rows(index)) for index in rows], dim=1)
    weight = torch.randn(terms.shape, generator=generator())
    parameters = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
    found = torch.autograd.grad((terms * weight).sum(), parameters, allow_unused=True)
    return terms.detach(), [gradient for gradient in found if gradient is not None]


def assert_as_alone(policy: BasePolicy, rollouts: Rollouts, views: Views) -> None:
    every = torch.arange(rollouts.num_rows)
    together, gradients = graded(policy, rollouts, views, (every,))
    alone, wanted = graded(policy, rollouts, views, every.split(1))
    assert (alone[views.score] != 0).any()
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    share_of_largest = 1e-6 if gradients[0].dtype == torch.float64 else 2e-5
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=share_of_largest * float(other.abs().max()), rtol=1e-4)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_terms_and_gradients_are_those_of_rows_that_are_scored_alone(family: str, name: str) -> None:
    policy, rollouts = doubled(family)
    views = VIEWS[name](policy, rollouts, generator())
    assert_as_alone(policy, rollouts, views)


@pytest.mark.parametrize("family", FAMILIES)
def test_so_are_those_of_draws_under_the_grammar(family: str) -> None:
    policy = random_policy(family)
    rows = (0, 0, 1, 0, 1, 2)
    prompts = replace(prompts_of(policy, rows), row_ids=torch.tensor([3, 3, 4, 5, 6, 7]))
    sampler = registry.build("sampler", policy.usual_sampler, {"grammar": True})
    drawn = sampler.generate(policy, prompts, seed=1)
    groups, valid = torch.tensor(rows), torch.ones(6, dtype=torch.bool)
    rollouts = Rollouts(
        prompt_ids=prompts.ids,
        prompt_mask=prompts.mask,
        completion_ids=drawn.ids,
        completion_mask=drawn.mask,
        rewards=torch.zeros(6),
        group_ids=groups,
        valid=valid,
        trajectory=drawn.trajectory,
        totals=Rollouts.count_totals(valid, groups, drawn.mask),
    )
    assert_as_alone(policy, rollouts, policy.process.replay(rollouts, generator()))


@contextmanager
def forwards(policy: BasePolicy, sizes: list[int]) -> Iterator[None]:
    """Note how many rows each forward of the model reads."""
    hook = policy.model.register_forward_hook(
        lambda _module, _inputs, kwargs, _output: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    try:
        yield
    finally:
        hook.remove()


def rows_fed(policy: BasePolicy, work: Callable[[], object]) -> int:
    """Rows that the model's forwards read."""
    sizes: list[int] = []
    with forwards(policy, sizes):
        work()
    return sum(sizes)


@pytest.mark.parametrize(
    ("family", "name", "is_once"),
    [
        ("masked", "one_step", lambda rollouts: rollouts.prompt_ids),
        ("slot", "one_step", lambda rollouts: rollouts.prompt_ids),
        ("autoregressive", "exact", lambda rollouts: torch.cat([rollouts.prompt_ids, rollouts.completion_ids], 1)),
        ("block", "one_step", lambda rollouts: torch.cat([rollouts.prompt_ids, rollouts.completion_ids], 1)),
    ],
)
def test_what_is_equal_is_fed_once(family: str, name: str, is_once: Callable[[Rollouts], Tensor]) -> None:
    policy, rollouts = doubled(family)
    views = VIEWS[name](policy, rollouts, generator())
    wanted = len(is_once(rollouts).unique(dim=0))
    assert wanted < rollouts.num_rows
    assert rows_fed(policy, lambda: policy.view_log_probs(rollouts, views)) == wanted
    assert num_distinct(distinct_inputs(policy, rollouts, views)) == wanted


def test_rows_of_which_a_view_scores_nothing_are_not_fed() -> None:
    policy, rollouts = doubled("masked")
    views = policy.process.one_step(rollouts, generator())
    silent = torch.arange(rollouts.num_rows) % 3 == 0
    views = replace(views, score=views.score & ~silent[:, None])
    inputs = distinct_inputs(policy, rollouts, views)
    assert torch.equal(inputs[0] < 0, silent)
    assert rows_fed(policy, lambda: policy.view_log_probs(rollouts, views)) == num_distinct(inputs)
    nothing = replace(views, score=torch.zeros_like(views.score))
    assert rows_fed(policy, lambda: policy.view_log_probs(rollouts, nothing)) == 0


def test_samplers_read_a_prompt_once_and_draw_as_if_each_row_were_alone() -> None:
    for family, num_fed in (("autoregressive", 2), ("masked", 2)):
        policy = random_policy(family)
        prompts = replace(prompts_of(policy, (0, 1, 0, 1, 0)), row_ids=torch.arange(5))
        sampler = registry.build("sampler", policy.usual_sampler, {})
        sizes: list[int] = []
        with forwards(policy, sizes):
            together = sampler.generate(policy, prompts, seed=2)
        assert sizes[0] == num_fed
        for row in torch.arange(5).split(1):
            alone = sampler.generate(policy, prompts.rows(row), seed=2)
            assert torch.equal(together.ids[row], alone.ids)
            torch.testing.assert_close(
                together.trajectory.rows(row).log_probs, alone.trajectory.log_probs, atol=1e-4, rtol=1e-4
            )


def test_rows_that_ask_about_other_columns_do_not_share() -> None:
    policy = random_policy("masked")
    prompts, canvas = prompts_of(policy, (0, 0, 0)), policy.empty_canvas(3)
    columns = torch.tensor([[1, 4], [2, 5], [1, 4]])
    with torch.no_grad():
        every = policy.logits(prompts, canvas)
        found = policy.logits(prompts, canvas, columns=columns)
    wanted = every.gather(1, columns[..., None].expand(-1, -1, every.shape[-1]))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_rows_are_equal_where_all_parts_are() -> None:
    ids = torch.tensor([[7, 1], [2, 2], [7, 1], [2, 2], [7, 1]])
    time = torch.tensor([0.5, 0.1, 0.5, 0.2, 0.25])
    shared = share([ids, time])
    assert shared.first.tolist() == [0, 1, 3, 4] and shared.place.tolist() == [0, 1, 0, 2, 3]
    some = share([ids], torch.tensor([False, True, True, True, False]))
    assert some.first.tolist() == [1, 2] and some.place.tolist() == [-1, 0, 1, 0, -1]


def test_micro_batches_hold_no_more_than_the_limit_and_bring_equal_inputs_together() -> None:
    groups = torch.tensor([5, 2, 5, 2, 5, 2])
    inputs = torch.tensor([[0, 1, 0, 1, 0, 1], [0, 1, 2, 1, 0, -1]])
    batches = micro_batches(inputs, groups, 3, holds_all_views=True)
    assert [batch.tolist() for batch in batches] == [[5, 1, 3], [0, 4, 2]]
    assert [num_distinct(inputs[:, batch]) for batch in batches] == [2, 3]
    assert [len(batch) for batch in micro_batches(inputs, groups, 1, holds_all_views=True)] == [1, 2, 2, 1]
    assert len(micro_batches(inputs, groups, 3, holds_all_views=False)) == 1
