"""Waiting threads sleep soon, unless the user has said otherwise."""

from __future__ import annotations

import os

import pytest

from experiments.cli.commands import SPIN_COUNT, wait_politely


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, SPIN_COUNT), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
    ids=["nothing said", "count said", "policy said"],
)
def test_the_users_word_stands(monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: str | None) -> None:
    environment = dict(given)
    monkeypatch.setattr(os, "environ", environment)
    wait_politely()
    assert environment.get("GOMP_SPINCOUNT") == expected
