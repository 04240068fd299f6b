"""The alarm for gaming: planted hacks are found and named, honest runs are left alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from benchmarks.gaming_alarm import HACKS, HONEST, first_alarms, simulate
from dllm_rl.training.gaming import claim_metrics
from experiments.analysis.collapse.diagnosis import diagnose
from experiments.analysis.collapse.gaming import gap_opens
from experiments.analysis.collapse.online import CollapseError, OnlineDiagnosis
from experiments.analysis.collapse.series import Series

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


@pytest.mark.parametrize("name", [name for name in HONEST if name != "long run"])
def test_an_honest_run_is_left_alone(name: str) -> None:
    assert not alarms_of(simulate(HONEST[name], seed=3))


@pytest.mark.parametrize(
    ("first", "tau", "is_alarm"),
    [(0.9, 0.8, False), (0.9, 0.3, True), (0.9, None, True), (-0.1, -0.02, True), (0.01, 0.05, True)],
)
def test_a_gap_is_gaming_unless_claims_still_tell_success_from_failure(
    first: float, tau: float | None, is_alarm: bool
) -> None:
    """An honest policy that learns to submit shows a judge of pages failures that it had not seen before.

    Claims that told nothing at first tell nothing still.
    """
    steps, noise = np.arange(40), np.random.default_rng(0).normal(0, 0.02, 40)
    later = steps >= 12
    columns = {"reward_gap": 0.15 * later + noise, "claim": 0.4 + 0.15 * later + noise}
    if tau is not None:
        columns["rank_agreement"] = np.where(later, tau, first) + noise
    series = {
        name: Series(name=name, steps=steps if name in columns else steps[:0], values=columns.get(name, noise[:0]))
        for name in ("reward_gap", "claim", "rank_agreement")
    }
    assert (gap_opens(*series.values(), window=5) is not None) == is_alarm


def test_agreement_that_is_seldom_known_vetoes_nothing() -> None:
    steps, noise = np.arange(40), np.random.default_rng(0).normal(0, 0.02, 40)
    later = steps >= 12
    gap, claim = (Series(name=n, steps=steps, values=0.15 * later + noise) for n in ("reward_gap", "claim"))
    seldom = Series(name="rank_agreement", steps=steps[::3], values=np.full(len(steps[::3]), 0.9))
    assert gap_opens(gap, claim, seldom, 5) is not None


@pytest.mark.parametrize("name", ["short run", "short run, in part", "short run, weak judge"])
@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_is_gamed_from_its_first_steps_is_seen_before_its_fifteenth(name: str, seed: int) -> None:
    """In a run of 24 steps."""
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
