"""Progress names every unit, and its estimate follows the pace of this machine."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from experiments.run import progress
from experiments.run.progress import Clock, ConsoleProgress, duration
from experiments.run.runner import run_units
from experiments.run.status import Status
from tests.experiments.grids import FakeWork, plan


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.4, "4 s"), (185, "3 min"), (7500, "2 h 05 min"), (86_400, "24 h 00 min")]
)
def test_durations_as_people_write_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_machine_of_half_the_speed_doubles_the_estimate(tmp_path, monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    units = [unit for unit in plan(tmp_path, "train.steps=4000").units if not unit.is_warm_start]
    clock = Clock(units)
    planned = sum(unit.cost.seconds for unit in units)
    assert clock.seconds_left() == pytest.approx(planned)
    now[0] += 2 * units[0].cost.seconds
    clock.finish(units[0])
    left = planned - units[0].cost.seconds
    assert clock.seconds_left() == pytest.approx(2 * left, rel=0.1)


def test_every_unit_has_its_line_where_there_is_no_terminal(tmp_path) -> None:
    grid, text = plan(tmp_path), io.StringIO()
    work = FakeWork({"masked-grpo seed 1": RuntimeError("the page burned")})
    with ConsoleProgress(grid.units, Console(file=text)) as shown:
        run_units(grid, work, shown)
    lines = text.getvalue().splitlines()
    for unit in grid.units:
        assert any(unit.name in line and ("done" in line or "FAILED" in line) for line in lines)
    assert any("FAILED: RuntimeError: the page burned" in line for line in lines)
    assert lines[-1].startswith(f"[{len(grid.units)}/{len(grid.units)}]")


def test_units_that_were_finished_before_are_passed_over(tmp_path) -> None:
    text = io.StringIO()
    grid = plan(tmp_path)
    with ConsoleProgress([], Console(file=text)) as shown:
        shown.finish(grid.units[0], Status(state="done"))
    assert text.getvalue() == ""
