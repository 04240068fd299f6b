"""Metrics of plans with right fields: what each counts, when it is absent, and that group sizes do not bias it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dllm_rl.records.tasks import Fault, FieldResult, Outcome
from dllm_rl.training.conversion import conversion_metrics, mixed_groups, within_share


def outcome(*, is_right: bool, is_submitted: bool, shown: str | None = "x", **more: Any) -> Outcome:
    dom = None if shown is None else (shown,)
    field = FieldResult(name="a", wanted=("x",), server=None, dom=dom, is_correct=is_right, is_default=False)
    return Outcome(task_id="t", is_submitted=is_submitted, fields=(field,), **more)


RIGHT, NEAR = outcome(is_right=True, is_submitted=True), outcome(is_right=True, is_submitted=False)
WRONG = outcome(is_right=False, is_submitted=True)
LOST = outcome(is_right=True, is_submitted=True, fault=Fault.ENVIRONMENT)


def metrics(*groups: list[Outcome]) -> dict[str, float]:
    ids = torch.tensor([number for number, group in enumerate(groups) for _ in group])
    return conversion_metrics([item for group in groups for item in group], ids)


def test_each_share_counts_what_its_name_says():
    found = metrics([RIGHT, NEAR, WRONG], [NEAR, NEAR, WRONG], [RIGHT, WRONG, WRONG], [LOST, WRONG, WRONG])
    assert found["right"] == pytest.approx(5 / 11)
    assert found["near_miss"] == pytest.approx(3 / 11)
    assert found["conversion"] == pytest.approx(2 / 5)
    # The third group has one right rollout: it cannot be mixed, and is not asked.
    assert found["right_mixed_groups"] == pytest.approx(1 / 2)


def test_a_share_is_absent_where_it_is_undefined():
    assert metrics([WRONG, WRONG], [WRONG, LOST]) == {"right": 0.0, "near_miss": 0.0}
    alone = metrics([RIGHT, WRONG], [NEAR, WRONG])
    assert set(alone) == {"right", "near_miss", "conversion"}
    assert "right_within_share" not in metrics([RIGHT, RIGHT], [RIGHT, RIGHT])


def test_environments_that_give_only_a_reward_have_none_of_them():
    won, missed = (outcome(is_right=right, is_submitted=True, shown=None) for right in (True, False))
    assert metrics([won, missed]) == {}
    assert metrics([LOST]) == {}


def test_an_accepted_plan_that_answers_what_nobody_asked_is_not_right():
    unclean = outcome(is_right=True, is_submitted=True, is_clean=False)
    found = metrics([unclean, NEAR, RIGHT, WRONG])
    assert (found["right"], found["conversion"]) == (0.5, 0.5)


def test_the_within_share_tells_the_draw_from_the_task():
    success, groups = torch.tensor([True, False, True, False]), torch.tensor([3, 3, 7, 7])
    assert within_share(success, groups) == pytest.approx(0.5 / (1 / 3))
    assert within_share(success, torch.tensor([3, 7, 3, 7])) == 0.0
    assert mixed_groups(success, torch.tensor([3, 7, 3, 7])) == 0.0


def test_the_within_share_is_one_in_the_mean_for_groups_of_any_size_without_an_effect():
    """The plain share of sums of squares would be (n - g) / (n - 1), here .64."""
    draw = torch.Generator().manual_seed(0)
    groups = torch.repeat_interleave(torch.arange(12), torch.tensor([1, 2, 3, 4] * 3))
    shares = [within_share(torch.rand(30, generator=draw) < 0.4, groups) for _ in range(2000)]
    assert sum(share for share in shares if share is not None) / len(shares) == pytest.approx(1.0, abs=0.02)
