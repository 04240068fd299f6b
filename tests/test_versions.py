"""No number of a component changes without a raised version, by which finished results are known to be another's."""

from __future__ import annotations

import json

import pytest

from dllm_rl import registry
from tests.frozen import FILE, differences, measured, names, unraised

FROZEN = json.loads(FILE.read_text())
REWRITE = "Then write tests/frozen.json anew: python -m tests.frozen"


@pytest.mark.parametrize("label", FROZEN)
def test_numbers_change_with_the_version_alone(label: str) -> None:
    kind, name = label.split(" ")
    assert name in names(kind), f"no {label} any more. {REWRITE}"
    found = measured(kind, name)
    assert not unraised({label: FROZEN[label]}, {label: found}), REWRITE
    assert found["version"] == FROZEN[label]["version"], f"{label} has another version. {REWRITE}"


def test_a_changed_number_asks_for_a_raised_version() -> None:
    known = {"reward shaped": {"version": 1, "outcomes": [0.0, 0.3], "text": ["submit p1.e1"]}}
    rounded = {"reward shaped": {"version": 1, "outcomes": [0.0, 0.30001], "text": ["submit p1.e1"]}}
    changed = {"reward shaped": {"version": 1, "outcomes": [0.0, 0.31], "text": ["submit p1.e2"]}}
    assert differences(known["reward shaped"], changed["reward shaped"]) == ["outcomes", "text"]
    assert unraised(known, rounded) == []
    assert unraised(known, changed) == [
        "reward shaped: outcomes, text changed, and its version is still 1. Raise the version."
    ]
    assert unraised(known, {"reward shaped": {**changed["reward shaped"], "version": 2}}) == []


def test_every_component_declares_a_version() -> None:
    for kind in registry.KINDS:
        for name, cls in registry.items(kind):
            assert isinstance(cls.version, int) and cls.version >= 1, f"{kind} {name}"
