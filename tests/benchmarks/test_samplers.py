"""The bench of samplers on random models, in sizes of a second: every arm at batch 1 and 16, kept and reported."""

from __future__ import annotations

import argparse

import pytest

from benchmarks import arms, samplers
from dllm_rl.errors import ConfigError


def test_random_sections_at_both_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(samplers, "COLUMNS", 4)
    monkeypatch.setattr(samplers, "PROMPTS", {64: 5})
    monkeypatch.setattr(arms, "NUM_PARAMETERS", 64 * 384 + 1.8e6)
    given = argparse.Namespace(out=tmp_path, docs=tmp_path / "docs", repeats=1, arms=[])
    for batch in (1, 16):
        samplers.run_section("V=64", batch, given)
    rows = samplers.rows_of(arms.Ledger(tmp_path / "samplers.json"))
    names = {batch: [row["arm"] for row in rows if row["batch"] == batch] for batch in (1, 16)}
    assert names[1] == names[16]
    assert {"textbook loop", "ar with cache", "block of 16, 8 steps", "threshold .9"} <= set(names[16])
    assert all(row["plans"] == row["batch"] and row["tokens"] == 4 * row["batch"] for row in rows)
    same = {(row["batch"], row["arm"]): row["ids"] for row in rows}
    assert all(same[batch, "low_confidence"] == same[batch, "textbook loop"] for batch in (1, 16))
    samplers.report(given)
    assert "## V=64, batch 16: 16 plans" in (tmp_path / "docs" / "bench_samplers.md").read_text()
    with pytest.raises(ConfigError, match="no arm starts with nothing"):
        samplers.run_section("V=64", 1, argparse.Namespace(**{**vars(given), "arms": ["nothing"]}))
