"""Sequential Monte Carlo reaches its target, and its record is the past of the one canvas that is kept."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from dllm_rl import registry
from dllm_rl.errors import ConfigError, NonFiniteError
from dllm_rl.records.events import UnsortedEvents
from dllm_rl.records.types import Prompts
from samplers import SMCSampler, Watcher
from tests.objectives.paths import Paths, enumerated, small_policy

NUM_ROWS = 3000


@functools.cache
def paths() -> Paths:
    return enumerated(small_policy("masked", length=3), registry.build("sampler", "threshold", {"threshold": 0.4}))


def prompts(num: int = NUM_ROWS) -> Prompts:
    ids = torch.full((num, 1), 4)
    return Prompts(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool), row_ids=torch.arange(num))


def frequencies(drawn: Tensor, texts: Tensor) -> Tensor:
    index = (drawn[:, None] == texts).all(-1).long().argmax(1)
    return torch.bincount(index, minlength=len(texts)) / len(drawn)


def target(power: float, tilt: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Every text, and its share of the rule's paths, weighed by their probability to a power and a tilt."""
    found = paths()
    weight = ((1 + power) * found.log_probs.detach()).exp()
    texts, index = found.completions.ids.unique(dim=0, return_inverse=True)
    if tilt is not None:
        weight = weight * tilt[index]
    total = torch.zeros(len(texts), dtype=torch.float64).index_add(0, index, weight)
    return texts, total / total.sum()


def distance(sampler: SMCSampler, texts: Tensor, expected: Tensor, **more) -> float:
    policy = small_policy("masked", length=3)
    drawn = sampler.generate(policy, prompts(), seed=0, **more)
    return float((frequencies(drawn.ids, texts) - expected).abs().sum() / 2)


def test_with_many_particles_texts_come_by_the_square_of_their_probability() -> None:
    texts, expected = target(1.0)
    one, many = (SMCSampler(threshold=0.4, num_particles=num, sharpness=1.0) for num in (1, 48))
    near, far = distance(many, texts, expected), distance(one, texts, expected)
    assert near < 0.06 and near < far / 3, (near, far)


def test_without_sharpness_and_potential_it_is_the_rule() -> None:
    texts, expected = target(0.0)
    assert distance(SMCSampler(threshold=0.4, num_particles=6, sharpness=0.0), texts, expected) < 0.06


def test_a_potential_tilts_the_texts() -> None:
    """A letter in the first column is worth e^2."""
    policy = small_policy("masked", length=3)
    texts, _ = target(0.0)
    texts, expected = target(0.0, torch.where(texts[:, 0] == 4, 2.0, 0.0).double().exp())
    sampler = SMCSampler(threshold=0.4, num_particles=48, sharpness=0.0)

    def potential(canvas: Tensor, is_masked: Tensor) -> Tensor:
        return 2.0 * ((canvas[:, 0] == 4) & ~is_masked[:, 0]).float()

    assert (texts[:, 0] == 4).any() and policy.mask_id != 4
    assert distance(sampler, texts, expected, potential=potential) < 0.06


@pytest.mark.parametrize("value", [-torch.inf, torch.nan])
def test_a_potential_that_is_not_finite_is_refused(value: float) -> None:
    """It would make all weights of a prompt NaN, and the draw by them the last particle."""
    sampler = SMCSampler(threshold=0.4, num_particles=4)

    def potential(canvas: Tensor, is_masked: Tensor) -> Tensor:
        return torch.where(is_masked.any(1), 0.0, value)

    with pytest.raises(NonFiniteError, match="the potential of particle 0 is"):
        sampler.generate(small_policy("masked", length=3), prompts(2), seed=0, potential=potential)


def test_rows_take_the_past_of_their_ancestors() -> None:
    row, numbers = torch.tensor([1, 0, 1, 2, 0]), torch.arange(5)
    events = UnsortedEvents(
        row=row, step=numbers, column=numbers, token=numbers, kind=numbers, log_prob=numbers.float(), entropy=numbers
    )
    given = events.of_ancestors(torch.tensor([0, 0, 2, 1]))
    assert given.row.tolist() == [0, 0, 1, 1, 2, 3, 3]
    assert given.token.tolist() == [1, 4, 1, 4, 3, 0, 2]
    assert given.log_prob.tolist() == [1.0, 4.0, 1.0, 4.0, 3.0, 0.0, 2.0]


def test_nobody_can_watch_several_canvases() -> None:
    with pytest.raises(ConfigError, match="several canvases"):
        SMCSampler().generate(small_policy("masked", length=3), prompts(2), seed=0, watcher=Watcher())


@pytest.mark.parametrize(
    "options", [{"num_particles": 0}, {"sharpness": -1.0}, {"least_share": 0.0}, {"guidance": 1.0}]
)
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        SMCSampler(**options)
