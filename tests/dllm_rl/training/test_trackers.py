"""Trackers of accelerate: every metric of every step arrives, and a package that is missing is one message."""

from __future__ import annotations

import importlib.util

import pytest

from dllm_rl.errors import ConfigError
from dllm_rl.files import read_rows
from dllm_rl.training.config import trackable
from tests.dllm_rl.training.test_trainer import make, same, weights


def test_tensorboard_holds_what_metrics_jsonl_holds_and_changes_no_weight(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tracked, plain = (make("autoregressive", "grpo", tmp_path / name, tracker=tracker) for name, tracker in TRACKERS)
    tracked.train()
    plain.train()
    assert same(weights(tracked), weights(plain))
    file = _largest_event_file(tmp_path / "a")
    found = events.EventAccumulator(str(file)).Reload()
    rows = read_rows(tmp_path / "a" / "metrics.jsonl")
    for name in ("reward", "grad_norm", "entropy"):
        points = [(point.step, point.value) for point in found.Scalars(name)]
        assert points == [(row["step"], pytest.approx(row[name], rel=1e-5)) for row in rows]
    assert not list((tmp_path / "b").rglob("events.*"))


TRACKERS = (("a", "tensorboard"), ("b", None))


def _largest_event_file(folder):
    """The file with scalars; the settings of the run have one of their own."""
    return max(folder.rglob("events.out.tfevents.*"), key=lambda path: path.stat().st_size)


def test_a_tracker_that_is_not_installed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'dllm-rl\[wandb\]'"):
        make("autoregressive", "grpo", tmp_path, tracker="wandb")


def test_only_finite_numbers_are_drawn():
    assert trackable({"a": 1, "b": float("nan"), "c": None, "d": "text"}) == {"a": 1}
