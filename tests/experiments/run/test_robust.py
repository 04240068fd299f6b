"""Two processes on one grid, full disks, damaged files, and many failures alike: nothing is lost, nothing is hidden."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console

from dllm_rl.errors import CheckpointError
from dllm_rl.files import append_rows
from experiments.cli.grid import _conclude
from experiments.cli.status import show_status
from experiments.design.units import choose
from experiments.report import build_report
from experiments.run.folder import DamagedResultError
from experiments.run.results import is_equal
from experiments.run.runner import Silent, common_failure, owed_units, reason_of, run_units
from experiments.run.status import Status, claim, is_claimed, read_status, write_status
from tests.experiments.grids import FakeWork, plan
from tests.processes import Forked


def undisturbed(folder):
    grid = plan(folder)
    run_units(grid, FakeWork(), Silent())
    return grid.root / "results.parquet"


class Slow(FakeWork):
    """Work that takes a while, and a line in a file for each unit."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self.log = log

    def _rows(self, unit):
        with self.log.open("a") as file:
            file.write(unit.name + "\n")
        time.sleep(0.15)
        return super()._rows(unit)


def run_slowly(folder: Path, log: Path) -> None:
    run_units(plan(folder), Slow(log), Silent())


def test_two_processes_share_one_grid(tmp_path):
    """Each unit runs once, in one of them, and the results are those of one process alone."""
    folder, log = tmp_path / "shared", tmp_path / "log"
    plan(folder)
    processes = [Forked(run_slowly, folder, log, output=tmp_path / f"said{number}") for number in range(2)]
    for process in processes:
        text = process.end()
        assert process.code == 0, text
    grid = plan(folder)
    assert sorted(log.read_text().splitlines()) == sorted(unit.name for unit in grid.units)
    assert owed_units(grid) == []
    assert is_equal(grid.root / "results.parquet", undisturbed(tmp_path / "alone"))


def hold_for_an_instant(folder: Path) -> None:
    with FileLock(folder / ".lock"):
        (folder / "held").touch()
        time.sleep(0.1)


def test_a_look_at_a_state_does_not_make_a_runner_pass_the_unit_over(tmp_path):
    """Whoever reads a state takes the lock for an instant; a claim outlasts that."""
    watcher = Forked(hold_for_an_instant, tmp_path, output=tmp_path / "said")
    while not (tmp_path / "held").exists():
        assert watcher.code is None
    with claim(tmp_path) as is_mine:
        assert is_mine
    assert not is_claimed(tmp_path)
    watcher.end()
    assert watcher.code == 0


def test_who_only_looks_needs_no_right_to_write(tmp_path, monkeypatch):
    write_status(tmp_path, Status(state="running", pid=1))
    opened = os.open

    def read_only(path, flags, *mode, **more):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise PermissionError(path)
        return opened(path, flags, *mode, **more)

    with claim(tmp_path) as is_mine, monkeypatch.context() as patched:
        patched.setattr(os, "open", read_only)
        assert is_mine and read_status(tmp_path).state == "running"
    monkeypatch.setattr(os, "open", read_only)
    assert read_status(tmp_path).cause == "interrupted"


class Filling(FakeWork):
    """The fourth unit finds the disk full."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file

    def _rows(self, unit):
        rows = super()._rows(unit)
        if len(self.calls) == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
            if self.file == "metrics":
                append_rows(unit.folder / "metrics.jsonl", [{"step": step, "note": "x" * 90} for step in range(20)])
        return rows


def run_until_full(folder: Path, file: str) -> None:
    try:
        run_units(plan(folder), Filling(file), Silent())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.mark.parametrize("file", ["metrics", "evaluation"])
def test_a_full_disk_ends_the_grid_with_one_message_and_costs_nothing_finished(tmp_path, file):
    """A limit on file sizes stands for the full disk: the write that does not fit fails half way."""
    process = Forked(run_until_full, tmp_path / "full", file, output=tmp_path / "said")
    text = process.end()
    assert process.code == 1
    assert "DiskFullError: no room is left to write" in text
    grid = plan(tmp_path / "full")
    states = [read_status(unit.folder).state for unit in grid.units]
    assert states == ["done"] * 3 + ["owed"] * (len(grid.units) - 3)
    finished = {unit.name: unit.files.rows_file.read_bytes() for unit in grid.units[:3]}
    run_units(grid, FakeWork(), Silent())
    assert is_equal(grid.root / "results.parquet", undisturbed(tmp_path / "alone"))
    assert finished == {unit.name: unit.files.rows_file.read_bytes() for unit in grid.units[:3]}


def test_a_damaged_result_is_refused_until_it_is_deleted(tmp_path):
    grid = plan(tmp_path)
    run_units(grid, FakeWork(), Silent())
    part = grid.units[2].files.rows_file
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(bytes(data))
    with pytest.raises(DamagedResultError, match="Delete it"):
        run_units(grid, FakeWork(), Silent())
    part.unlink()
    again = FakeWork()
    run_units(grid, again, Silent())
    assert again.calls == [grid.units[2].name]


def test_an_evaluation_whose_rows_are_gone_is_owed_in_state_and_report(tmp_path, capsys):
    grid = plan(tmp_path)
    run_units(grid, FakeWork(), Silent())
    assert build_report(grid.root)["is_complete"]
    warm, cell = grid.units[0], grid.units[3]
    for unit in (warm, cell):
        unit.files.rows_file.unlink()
    show_status(grid.root, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert sorted(row["state"] for row in rows) == ["done"] * 10 + ["owed"] * 2
    report = build_report(grid.root)
    assert not report["is_complete"] and report["headline"].startswith("This grid is not finished")


def test_a_damaged_checkpoint_is_a_failure_with_its_cause_in_the_status(tmp_path, capsys):
    grid = plan(tmp_path)
    name = "masked-grpo seed 0"
    statuses = run_units(grid, FakeWork({name: CheckpointError("'x' does not match its recorded hash")}), Silent())
    assert statuses[name].cause == "CheckpointError: 'x' does not match its recorded hash"
    show_status(grid.root, as_json=True)
    rows = {(row["cell"], row["seed"]): row for row in json.loads(capsys.readouterr().out)}
    assert "recorded hash" in rows["masked-grpo", 0]["cause"]
    assert rows["warm start masked", None]["state"] == "done"


def test_a_grid_stops_when_many_cells_fail_alike_and_goes_on_once_that_is_mended(tmp_path):
    """12 units: the fourth failure for one reason passes 30 %."""
    grid = plan(tmp_path)
    trained = [unit.name for unit in grid.units if not unit.is_warm_start]
    broken = {name: RuntimeError(f"step {i}: data/x{i} is gone") for i, name in enumerate(trained)}
    work = FakeWork(dict(broken))
    statuses = run_units(grid, work, Silent())
    assert len(grid.units) == 12
    assert len(work.calls) == 2 + 4
    assert sorted(status.state for status in statuses.values()) == ["done"] * 2 + ["failed"] * 4 + ["owed"] * 6
    cause, count = common_failure(statuses.values(), len(grid.units)) or ("", 0)
    assert (cause, count) == ("RuntimeError: step 0: data/x0 is gone", 4)
    assert {status.state for status in run_units(grid, FakeWork(), Silent()).values()} == {"done"}


def test_few_failures_among_few_chosen_units_stop_nothing(tmp_path, capsys):
    """The share is of the whole grid, of 12 units here."""
    grid = choose(plan(tmp_path), ["masked-*"])
    broken = {name: RuntimeError("flaky") for name in ("masked-grpo seed 0", "masked-espo seed 0")}
    work = FakeWork(dict(broken))
    statuses = run_units(grid, work, Silent())
    assert len(work.calls) == len(statuses) == 5
    assert _conclude(statuses, len(grid.units), Console()) == 1
    assert "for one reason" not in capsys.readouterr().out


@pytest.mark.parametrize("num_owed", [0, 2])
def test_what_was_not_started_is_told_only_where_something_was_left(num_owed, capsys):
    states = {f"{n}": Status(state="failed" if n >= num_owed else "owed", cause="burned") for n in range(6)}
    _conclude(states, 6, Console())
    said = capsys.readouterr().out
    assert f"{6 - num_owed} of 6 units failed for one reason" in said
    assert ("so the rest was not started" in said) == bool(num_owed)


@pytest.mark.parametrize(("num_owed", "code"), [(0, 0), (2, 1)])
def test_units_that_are_owed_at_the_end_are_told_and_are_no_success(num_owed, code, capsys):
    states = {f"{n}": Status(state="done" if n >= num_owed else "owed") for n in range(6)}
    assert _conclude(states, 9, Console()) == code
    assert ("2 of 6 units are owed; the same command continues." in capsys.readouterr().out) == bool(num_owed)


def test_failures_of_different_kinds_stop_nothing(tmp_path):
    grid = plan(tmp_path)
    trained = [unit.name for unit in grid.units if not unit.is_warm_start]
    words = ("page", "site", "door", "lamp", "tree", "bird", "moon", "star", "rain", "snow")
    work = FakeWork({name: RuntimeError(f"the {word} burned") for name, word in zip(trained, words, strict=True)})
    run_units(grid, work, Silent())
    assert len(work.calls) == len(grid.units)


def test_a_cause_without_what_differs_from_cell_to_cell():
    first, second = (f"TimeoutError: 'runs/a{n}/seed{n}' after {n}.5 s\nmore" for n in (1, 2))
    assert reason_of(first) == reason_of(second)
    assert reason_of("ValueError: a") != reason_of("ValueError: b")
    assert common_failure([Status(state="failed", cause="a")], 1) is None


def test_a_unit_that_a_dead_process_left_is_taken_up(tmp_path):
    grid = plan(tmp_path)
    write_status(grid.units[4].folder, Status(state="running", pid=999_999))
    run_units(grid, FakeWork(), Silent())
    assert owed_units(grid) == []
