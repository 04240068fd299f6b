"""Views kept with a checkpoint come back as they were, and give the same scores."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from dllm_rl import trajectory_views as tv
from dllm_rl import views as v
from dllm_rl.errors import CheckpointError
from dllm_rl.generators import generator
from dllm_rl.testing import toy
from dllm_rl.types import FAMILIES, Views
from dllm_rl.views_file import VIEWS_FILE, load_views, save_views
from tests.dllm_rl.test_trainer import make


def equal(first: Views, second: Views) -> bool:
    pairs = [(getattr(first, item.name), getattr(second, item.name)) for item in fields(Views)]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "block"])
def test_what_is_read_is_what_was_written_and_scores_the_same(tmp_path, family: str) -> None:
    item = toy(family)
    corruption, rng = item.policy.corruption, torch.Generator().manual_seed(0)
    drawn = [v.elbo(item.rollouts, corruption, rng), tv.trajectory(item.rollouts, corruption, rng, num_steps=2)]
    save_views(tmp_path / VIEWS_FILE, drawn)
    read = load_views(tmp_path / VIEWS_FILE)
    assert all(equal(a, b) for a, b in zip(drawn, read, strict=True))
    for a, b in zip(drawn, read, strict=True):
        assert torch.equal(*(item.policy.view_log_probs(item.rollouts, views) for views in (a, b)))


def test_a_checkpoint_keeps_the_views_of_its_last_step_and_a_resumed_run_draws_the_same(tmp_path) -> None:
    settings = {"steps": 2, "checkpoint_every": 1, "inner_steps": 2, "save_views": True}
    straight, broken = (make("masked", "espo", tmp_path / name, **settings) for name in "ab")
    straight.train()
    broken.train(until=1)
    make("masked", "espo", tmp_path / "b", **settings).train()
    kept = [load_views(tmp_path / name / "checkpoint" / VIEWS_FILE) for name in "ab"]
    assert len(kept[0]) == 2 and not equal(kept[0][0], kept[0][1]), "each inner step has views of its own"
    assert all(equal(a, b) for a, b in zip(*kept, strict=True))


def test_views_follow_from_seed_step_and_inner_step() -> None:
    item = toy("masked")
    drawn = [
        v.elbo(item.rollouts, item.policy.corruption, generator(0, "masks", step, inner, rank))
        for step, inner, rank in ((3, 0, 0), (3, 0, 0), (3, 1, 0), (4, 0, 0), (3, 0, 1))
    ]
    assert equal(drawn[0], drawn[1])
    assert not any(equal(drawn[0], other) for other in drawn[2:])


def test_a_missing_file_says_how_to_get_one(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"train\.save_views=true"):
        load_views(tmp_path / VIEWS_FILE)
