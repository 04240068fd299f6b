"""`grid --dry-run` of every preset that ships: what would run, what it costs, and what the design could see."""

from __future__ import annotations

import json
import re

import pytest
from rich.console import Console
from typer.testing import CliRunner

from dllm_rl.policies.checkpoints import TINY
from experiments.cli import app
from experiments.cli.dry_run import print_dry_run
from experiments.design.presets import load_preset, preset_names
from experiments.design.units import choose
from experiments.run.runner import Silent, run_units
from tests.experiments.grids import FakeWork, plan, preset, task_sets


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_says_its_units_its_cost_and_its_power(name: str, tmp_path) -> None:
    done = CliRunner().invoke(app, ["grid", name, "--dry-run", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "Traceback" not in done.output
    text = " ".join(done.output.split())
    assert "estimate in one process:" in text
    power = re.search(r"Smallest effect that this design finds 80 % of the time \(Holm over \d+\): (\S+) points", text)
    if name == "ci":
        assert "none: not even 100 points" in text
    else:
        assert power and 0 < float(power[1]) < 100, text[-400:]
    assert ("every verdict is single_seed" in text) == (len(load_preset(name).seeds) == 1)
    assert list(tmp_path.iterdir()) == []


def test_what_is_finished_reads_done_and_each_total_says_what_it_is_of(tmp_path, capsys) -> None:
    run_units(choose(plan(tmp_path), ["masked-grpo"]), FakeWork(), Silent())
    sets = task_sets(preset(tmp_path))
    print_dry_run(choose(plan(tmp_path), ["autoregressive-espo"]), sets, Console(width=120), workers=1)
    said = capsys.readouterr().out
    wanted = {"masked-grpo": "done", "autoregressive-espo": "owed", "masked-espo": "not"}
    lines = {name: next(line for line in said.splitlines() if f" {name} seed 0" in line) for name in wanted}
    assert all(word in lines[name] for name, word in wanted.items())
    assert "owed in all" in said
    # Of this command alone: one worker takes what it owes.
    ours = re.search(r"([^,]+) owed by this command; with 1 worker about (.+)", " ".join(said.split()))
    assert ours and ours[2].startswith(ours[1].strip() + " ")
    print_dry_run(plan(tmp_path), sets, Console(width=120))
    assert "owed by this command" not in capsys.readouterr().out


def test_memory_is_told_and_time_is_not_of_models_that_are_not_the_small_built_in_one(tmp_path, capsys) -> None:
    grid, sets = plan(tmp_path), task_sets(preset(tmp_path))
    print_dry_run(grid, sets, Console(width=120))
    said = capsys.readouterr().out
    assert "memory of masked" in said and "autoregressive, masked: not known" in said
    for path in (tmp_path / "checkpoints").glob("*/config.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": TINY}))
    print_dry_run(grid, sets, Console(width=120))
    said = capsys.readouterr().out
    assert "memory of" not in said and "not known" not in said
