"""Rewards are pure, bounded, and exact at both ends; only what was changed and received counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.records.tasks import ActionResult, Fault, FieldResult, Outcome
from harness.rewards import OutcomeReward, Shaped, Success, Tree, accuracy_of, submission_of

REWARDS = [cls() for _, cls in registry.items("reward") if issubclass(cls, OutcomeReward)]


def field(is_correct: bool, *, is_default: bool = False) -> FieldResult:
    return FieldResult(name="f", wanted=("a",), server=None, dom=None, is_correct=is_correct, is_default=is_default)


outcomes = st.builds(
    Outcome,
    task_id=st.just("t"),
    is_submitted=st.booleans(),
    is_clean=st.booleans(),
    fields=st.lists(
        st.builds(field, st.booleans(), is_default=st.booleans()),
        max_size=5,
    ).map(tuple),
    pages_reached=st.integers(0, 3),
    num_pages=st.just(3),
    num_submissions=st.integers(0, 4),
)


@given(outcomes)
def test_rewards_stay_between_nought_and_one(outcome: Outcome) -> None:
    for reward in REWARDS:
        assert 0.0 <= reward(outcome) <= 1.0


@given(outcomes)
def test_nothing_changed_is_nothing_earned(outcome: Outcome) -> None:
    if not any(result.is_correct and not result.is_default for result in outcome.fields):
        assert [reward(outcome) for reward in REWARDS] == [0.0] * len(REWARDS)


def test_the_oracle_is_exactly_one_with_any_weights() -> None:
    outcome = Outcome(task_id="t", is_submitted=True, fields=(field(True), field(True, is_default=True)))
    for weights in ({}, {"submission": 0.7, "field_accuracy": 0.1, "progress": 0.2}):
        assert Shaped(**weights)(outcome) == 1.0
    assert Success()(outcome) == 1.0


def test_a_spoilt_default_costs_and_a_kept_one_earns_nothing() -> None:
    kept = Outcome(task_id="t", fields=(field(True), field(False), field(True, is_default=True)))
    spoilt = Outcome(task_id="t", fields=(field(True), field(False), field(False, is_default=True)))
    assert accuracy_of(kept) == pytest.approx(1 / 2)
    assert accuracy_of(spoilt) == pytest.approx(1 / 3)


def test_answers_that_nobody_asked_for_count_as_one_wrong_field() -> None:
    clean = Outcome(task_id="t", is_submitted=True, fields=(field(True), field(True), field(True)))
    unclean = replace(clean, is_clean=False)
    assert accuracy_of(unclean) == pytest.approx(3 / 4)
    assert [reward(unclean) for reward in (Success(), Shaped(), Tree())] == pytest.approx([0.0, 0.9, 0.825])


def test_near_miss_and_success_exclude_each_other() -> None:
    filled = Outcome(task_id="t", fields=(field(True),))
    assert filled.is_near_miss
    assert not filled.is_success
    assert Shaped()(filled) == pytest.approx(0.4)


def test_every_further_submission_costs() -> None:
    again = ActionResult(line=9, text="submit p1.e4", status="skipped")
    whole = {"task_id": "t", "is_submitted": True, "fields": (field(True),)}
    assert Shaped()(Outcome(**whole, num_submissions=3)) == pytest.approx(0.8)
    assert Shaped()(Outcome(**whole, num_submissions=1, actions=(again,))) == pytest.approx(0.9)
    assert Shaped()(Outcome(**whole, num_submissions=40)) == 0.0


def test_the_tree_pays_for_pages_fields_and_errors_put_right() -> None:
    half = {"task_id": "t", "fields": (field(True), field(False)), "num_pages": 3}
    assert Tree()(Outcome(**half)) == pytest.approx(0.9 * (1 / 2) / 3)
    assert Tree()(Outcome(**half, pages_reached=2)) == pytest.approx(0.9 * (1 / 3 + 1 / 2) / 3)
    for errors, word in (((2,), 0.0), ((2, 2), 0.0), ((2, 1), 0.5)):
        outcome = Outcome(**half, num_rejected=len(errors), errors_by_rejection=errors)
        assert Tree()(outcome) == pytest.approx(0.9 * (1 / 2 + word) / 3)
    assert Tree()(Outcome(**half, is_submitted=True, num_submissions=1)) == pytest.approx(0.9 * 2.5 / 3)
    right = {"task_id": "t", "is_submitted": True, "fields": (field(True),), "num_submissions": 1}
    assert Tree()(Outcome(**right)) == 1.0
    assert Tree()(Outcome(**right, is_clean=False)) == pytest.approx(0.9 * 2.5 / 3)


def test_a_lost_rollout_has_an_empty_record() -> None:
    outcome = Outcome(task_id="t", fault=Fault.ENVIRONMENT)
    assert (Shaped()(outcome), submission_of(outcome), outcome.is_success) == (0.0, 0.0, False)


def test_weights_must_sum_to_one() -> None:
    with pytest.raises(ConfigError, match="sum to 1"):
        Shaped(submission=0.9)
