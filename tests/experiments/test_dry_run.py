"""`grid --dry-run` of every preset that ships: what would run, what it costs, and what the design could see."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from experiments.cli import app
from experiments.config import load_preset, preset_names


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_says_its_units_its_cost_and_its_power(name: str, tmp_path) -> None:
    done = CliRunner().invoke(app, ["grid", name, "--dry-run", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "Traceback" not in done.output
    text = " ".join(done.output.split())
    assert "estimate on two cores:" in text
    power = re.search(r"Smallest effect that this design finds 80 % of the time \(Holm over \d+\): (\S+) points", text)
    if name == "ci":
        assert "none: not even 100 points" in text
    else:
        assert power and 0 < float(power[1]) < 100, text[-400:]
    assert ("every verdict is single_seed" in text) == (len(load_preset(name).seeds) == 1)
    assert list(tmp_path.iterdir()) == []
