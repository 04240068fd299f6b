"""Inner updates end where the policy has moved too far from the one that sampled; a far target changes nothing."""

from __future__ import annotations

import math

import pytest
import torch

from dllm_rl.files import read_rows
from dllm_rl.records.types import Views
from dllm_rl.training.config import Targets
from dllm_rl.training.distance import Distance, Travelled
from tests.dllm_rl.training.test_trainer import make, same, weights

FAST = {"steps": 1, "inner_steps": 4, "learning_rate": 1e-2}


def view(score: list[bool]) -> Views:
    mask = torch.tensor(score)[None, None]
    return Views(tokens=mask.long(), score=mask, weight=mask.float())


def test_the_distance_is_its_formula_over_scored_terms_and_adds_up_over_micro_batches() -> None:
    new, old = torch.tensor([[[-1.0, -2.0, -9.0]]]), torch.tensor([[[-1.5, -1.8, -1.0]]])
    travelled = Travelled()
    travelled.add(view([True, True, False]), new, old)
    travelled.add(view([True, False, False]), old, old)
    given = travelled.distance()
    assert given.log_ratio == pytest.approx((0.5 + 0.2 + 0) / 3)
    assert given.kl == pytest.approx((math.exp(0.5) - 1.5 + math.exp(-0.2) - 0.8) / 3, rel=1e-5)
    assert Travelled().distance() == Distance(log_ratio=0.0, kl=0.0)


def test_either_target_stops_and_what_is_not_finite_is_beyond_both() -> None:
    assert not Targets(log_ratio=0.2).is_passed(Distance(log_ratio=0.2, kl=9.0))
    assert Targets(log_ratio=0.2).is_passed(Distance(log_ratio=0.21, kl=0.0))
    assert Targets(log_ratio=0.2, kl=0.01).is_passed(Distance(log_ratio=0.1, kl=0.02))
    assert not Targets().is_passed(Distance(log_ratio=1e9, kl=1e9))
    for broken in (math.nan, math.inf):
        assert Targets(kl=1.0).is_passed(Distance(log_ratio=0.0, kl=broken))
    travelled = Travelled()
    travelled.add(view([True]), torch.tensor([[[-torch.inf]]]), torch.tensor([[[-1.0]]]))
    assert Targets(log_ratio=100.0).is_passed(travelled.distance())
    assert Targets(kl=100.0).is_passed(travelled.distance())


@pytest.mark.parametrize("target", [{"target_log_ratio": 1e-6}, {"target_kl": 1e-12}])
def test_a_near_target_leaves_the_first_update_alone_and_drops_the_others(tmp_path, target) -> None:
    one = make("masked", "espo", tmp_path / "one", **FAST | {"inner_steps": 1})
    stopped = make("masked", "espo", tmp_path / "stopped", **FAST, **target)
    one.train()
    stopped.train()
    row = read_rows(tmp_path / "stopped" / "metrics.jsonl")[0]
    assert (row["inner/steps"], row["inner/stopped"]) == (1.0, 1.0)
    assert row["inner/log_ratio"] > 1e-6
    assert same(weights(one), weights(stopped))


def test_a_far_target_changes_no_weight_and_is_measured(tmp_path) -> None:
    plain, far = (
        make("masked", "espo", tmp_path / name, **FAST | more) for name, more in (("a", {}), ("b", {"target_kl": 1e6}))
    )
    plain.train()
    far.train()
    assert same(weights(plain), weights(far))
    row = read_rows(tmp_path / "b" / "metrics.jsonl")[0]
    assert (row["inner/steps"], row["inner/stopped"]) == (4.0, 0.0)
    assert row["inner/log_ratio"] > 0 and row["inner/kl"] > 0
    assert not any(name.startswith("inner/") for name in read_rows(tmp_path / "a" / "metrics.jsonl")[0])
