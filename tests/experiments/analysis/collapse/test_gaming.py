"""The alarm for gaming: planted hacks are found and named, honest runs are left alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from benchmarks.gaming_alarm import HACKS, HONEST, first_alarms, simulate
from dllm_rl.training.gaming import claim_metrics
from experiments.analysis.collapse.diagnosis import diagnose
from experiments.analysis.collapse.online import CollapseError, OnlineDiagnosis

GAMING = {"gap_opens", "opposed_trends", "agreement_lost", "degenerate_length"}


def alarms_of(rows: list[dict]) -> set[str]:
    return {alarm.detector for alarm in diagnose(rows).alarms} & GAMING


@pytest.mark.parametrize("name", HACKS)
def test_a_planted_hack_is_found_and_named(name: str) -> None:
    rows = simulate(HACKS[name], seed=3)
    found = diagnose(rows)
    assert alarms_of(rows), f"{name}: {found.sentence}"
    assert found.kind == "reward_hacking" and found.is_collapsed
    assert found.onset is not None and found.onset >= HACKS[name].onset - 15


# The long run takes seconds; a page's word while the policy learns to submit opens a gap indeed, and in one of three
# honest runs for long enough (docs/results/reward_gaming.md).
@pytest.mark.parametrize("name", [name for name in HONEST if name not in ("long run", "learns to submit")])
def test_an_honest_run_is_left_alone(name: str) -> None:
    assert not alarms_of(simulate(HONEST[name], seed=3))


@pytest.mark.parametrize("name", ["short run", "short run, in part", "short run, weak judge"])
@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_is_gamed_from_its_first_steps_is_seen_before_its_fifteenth(name: str, seed: int) -> None:
    """While agreement within groups still says so, in a run of 24 steps."""
    assert min(first_alarms(simulate(HACKS[name], seed=seed)).values()) < 14


def test_alarms_are_those_of_what_was_seen_so_far() -> None:
    """As training raises them: at the step at which `OnlineDiagnosis` stops."""
    rows = simulate(HACKS["fast"], seed=1)
    assert min(first_alarms(rows).values()) == OnlineDiagnosis(on_alarm="stop").replay(rows)


def test_a_reward_without_claims_is_never_accused() -> None:
    """A reward of the truth that pays for parts rises before success does: no claim was made, and no gap opens."""
    rows = [{key: value for key, value in row.items() if "claim" not in key} for row in simulate(HACKS["fast"], seed=3)]
    rows = [{key: value for key, value in row.items() if key not in ("reward_gap", "rank_agreement")} for row in rows]
    assert not alarms_of(rows)


def test_a_gamed_reward_whose_success_rose_as_well_has_cost_nothing_yet() -> None:
    """Claims rise from .3 to .95, success from .3 to .7: the reward is gamed, and the policy is better than it was."""
    random = np.random.default_rng(0)
    rows = []
    for step in range(120):
        done = max(0.0, min(1.0, (step - 30) / 60))
        success, claim = (0.3 + gain * done + random.normal(0, 0.02) for gain in (0.4, 0.65))
        rows.append({"step": step, "reward": claim, "claim": claim, "success": success, "reward_gap": claim - success})
    found = diagnose(rows)
    assert (found.kind, found.is_collapsed) == ("reward_hacking", False), found.sentence


def test_training_stops_on_a_hack_where_it_is_told_to() -> None:
    watch = OnlineDiagnosis(on_alarm="stop")
    rows = simulate(HACKS["fast"], seed=1)
    stopped = watch.replay(rows)
    assert stopped is not None and HACKS["fast"].onset < stopped < len(rows) - 1
    with pytest.raises(CollapseError, match=r"exceeds|rises|no longer"):
        OnlineDiagnosis(on_alarm="raise", rows=rows[:stopped]).observe(rows[stopped])


def test_agreement_is_measured_within_groups_that_have_something_to_tell() -> None:
    success = np.array([1, 0, 0, 1, 1, 1, 0, 0, 0], dtype=float)
    claims = np.array([0.9, 0.1, 0.2, 0.5, 0.6, 0.7, 0.3, 0.2, 0.1])
    groups = np.repeat([0, 1, 2], 3).astype(float)
    found = claim_metrics(claims, success, groups)
    assert found["rank_groups"] == 1 and found["rank_agreement"] == pytest.approx(np.sqrt(2 / 3), abs=1e-6)
    assert found["reward_gap"] == pytest.approx(claims.mean() - success.mean())
    assert claim_metrics(np.full(9, 0.5), success, groups)["rank_agreement"] == 0.0
    tied = np.round(np.random.default_rng(0).random(40), 1)
    done = (np.arange(40) % 3 == 0).astype(float)
    wanted = kendalltau(tied, done).statistic
    assert claim_metrics(tied, done, np.zeros(40))["rank_agreement"] == pytest.approx(wanted)
    assert "rank_agreement" not in claim_metrics(claims, np.zeros(9), groups)
