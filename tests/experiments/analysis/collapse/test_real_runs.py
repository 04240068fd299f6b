"""Real training broken on purpose: each kind of collapse is named, with what moved first; healthy runs are let be.

Soak (`make soak`): the same over many seeds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from experiments.analysis.collapse import Kind, diagnose
from experiments.analysis.collapse.online import OnlineDiagnosis
from tests.experiments.analysis.collapse.text_lab import TextEnvironment, pays_for_length, train

OFF_POLICY = {"ratio_spread", "ratio/far_share", "clip_ratio/region_mean", "ess", "grad_norm"}
HEALTHY: dict[str, Any] = {"inner_steps": 2, "steps": 30}
BREAKS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A run that is broken on purpose, the kind that must be named, and the signals that may have moved first."""

    kind: Kind
    first: set[str]
    settings: dict[str, Any] = field(default_factory=dict)


BROKEN = {
    # A healthy run is continued at a hundred times its rate: Adam moves every weight by it, whatever the gradient clip.
    "learning rate": Broken(
        kind="off_policy",
        first=OFF_POLICY,
        settings={"steps": 32, "then": (BREAKS, {"learning_rate": 0.02, "inner_steps": 4})},
    ),
    "inner updates without KL": Broken(
        kind="off_policy",
        first=OFF_POLICY,
        settings={"steps": 32, "then": (BREAKS, {"learning_rate": 8e-3, "inner_steps": 12})},
    ),
    # No ramp: the first update breaks everything, and there is never a healthy step to compare with.
    "learning rate from the start": Broken(
        kind="off_policy", first={"ratio/far_share"}, settings={"learning_rate": 0.02, "steps": 20}
    ),
    "independent masks": Broken(
        kind="estimator_noise",
        first={"ratio_dev_u0"},
        settings={"family": "masked", "objective": "espo_unshared", "steps": 4},
    ),
    "gameable reward": Broken(
        kind="drift",
        first={"parse_valid", "completion_length", "eos_share"},
        settings={"reward": pays_for_length, "learning_rate": 7e-4, "inner_steps": 1, "steps": 40},
    ),
    "broken site": Broken(
        kind="environment",
        first={"fault_share"},
        settings={"environment": lambda: TextEnvironment(lambda batch, row: batch >= BREAKS and row % 2 == 0)},
    ),
}


def rows_of(folder, settings: dict[str, Any], seed: int = 0) -> list[dict[str, Any]]:
    settings = HEALTHY | settings | {"seed": seed}
    if "environment" in settings:
        settings["environment"] = settings["environment"]()
    return train(folder, **settings)


@pytest.mark.parametrize("name", BROKEN)
def test_a_run_broken_on_purpose_is_named(tmp_path, name):
    rows, case = rows_of(tmp_path, BROKEN[name].settings), BROKEN[name]
    found = diagnose(rows)
    assert (found.kind, found.first_signal in case.first) == (case.kind, True), found.sentence
    # What is said afterwards was said while it trained, before the end.
    watch = OnlineDiagnosis()
    assert watch.replay(rows) is None
    grave = [alarm for alarm in watch.alarms if alarm.severity != "warning"]
    assert grave
    assert grave[0].raised < rows[-1]["step"]


def test_a_healthy_run_is_not_called_collapsed(tmp_path):
    found = diagnose(rows_of(tmp_path, {}))
    assert not found.is_collapsed, found.sentence
    assert not [alarm for alarm in found.alarms if alarm.severity != "warning"]


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_no_healthy_run_of_twenty_is_called_collapsed(tmp_path):
    called = [seed for seed in range(20) if diagnose(rows_of(tmp_path / str(seed), {}, seed)).is_collapsed]
    assert called == []


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", BROKEN)
def test_each_kind_is_named_over_ten_seeds(tmp_path, name):
    """Which signal crosses first may differ between seeds; the kind is named in nine of ten."""
    kinds = [diagnose(rows_of(tmp_path / str(seed), BROKEN[name].settings, seed)).kind for seed in range(10)]
    print(name, kinds)
    assert kinds.count(BROKEN[name].kind) >= 9
