"""Whatever is interrupted is continued by the same command, and ends in the same results."""

from __future__ import annotations

import os
import signal
from contextlib import nullcontext
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from dllm_rl.errors import BrowserMissingError, ConfigError
from dllm_rl.files import read_json, replace_file, write_json
from experiments.design.units import choose
from experiments.report.load import load_run
from experiments.run import runner
from experiments.run.folder import RunFolder
from experiments.run.results import is_equal
from experiments.run.runner import Silent, owed_units, refresh, run_units
from experiments.run.status import Status, claim, read_status, write_status
from tests.experiments.grids import FakeWork, plan
from tests.processes import Forked


def test_a_second_run_does_nothing(tmp_path) -> None:
    grid, work = plan(tmp_path), FakeWork()
    statuses = run_units(grid, work, Silent())
    assert {status.state for status in statuses.values()} == {"done"}
    before = (grid.root / "results.parquet").read_bytes()
    again = FakeWork()
    run_units(grid, again, Silent())
    assert again.calls == []
    assert owed_units(grid) == []
    assert (grid.root / "results.parquet").read_bytes() == before


def test_results_hold_every_unit_once_with_shared_warm_starts(tmp_path) -> None:
    grid = plan(tmp_path)
    run_units(grid, FakeWork(), Silent())
    table = pq.read_table(grid.root / "results.parquet").to_pylist()
    assert len(table) == 6 * len(grid.units)
    assert {row["cell"] for row in table if row["stage"] == "warmstart"} == {
        "warmstart:autoregressive",
        "warmstart:masked",
    }
    keys = [(row["cell"], row["seed"], row["task_id"], row["mode"]) for row in table]
    assert len(set(keys)) == len(keys)
    assert len(RunFolder(grid.root).finished()) == len(grid.units)


def test_another_evaluation_leaves_the_earlier_one_as_it_is(tmp_path) -> None:
    first, other = plan(tmp_path), plan(tmp_path, "evaluation.max_tasks=2")
    run_units(first, FakeWork(), Silent())
    rows = {unit.name: unit.files.rows_file.read_bytes() for unit in first.units}
    last = first.units[-1].name
    with pytest.raises(KeyboardInterrupt):
        run_units(other, FakeWork({last: KeyboardInterrupt()}), Silent())
    assert [unit.name for unit in owed_units(other)] == [last]
    assert other.units[-1].files.status.state == "owed"
    assert owed_units(first) == []
    assert {unit.files.status.state for unit in first.units} == {"done"}
    assert rows == {unit.name: unit.files.rows_file.read_bytes() for unit in first.units}


def test_a_training_that_an_alarm_stopped_stays_so_whatever_becomes_of_another_evaluation(tmp_path) -> None:
    class Stopped(FakeWork):
        def cell(self, unit, on_event):
            write_json(unit.folder / "alarms.json", {"stopped_at": 3, "because": "reward fell", "alarms": []})
            return super().cell(unit, on_event)

    first, other = plan(tmp_path), plan(tmp_path, "evaluation.max_tasks=2")
    run_units(first, Stopped(), Silent())
    last = other.units[-1].name
    for error in (RuntimeError("burned"), KeyboardInterrupt()):
        with nullcontext() if isinstance(error, RuntimeError) else pytest.raises(KeyboardInterrupt):
            run_units(other, Stopped({last: error}), Silent())
        status = first.units[-1].files.status
        assert (status.label, status.stopped_at, status.cause) == ("stopped", 3, "reward fell")
    assert {unit.files.status.label for unit in first.units if not unit.is_warm_start} == {"stopped"}


def test_all_versions_that_trained_a_unit_are_kept(tmp_path) -> None:
    """A run that is continued under another PyTorch, and then evaluated anew under a third."""

    class Noting(FakeWork):
        by = "1"

        def cell(self, unit, on_event):
            record = read_json(unit.folder / "cell.json")
            write_json(
                unit.folder / "cell.json", {**record, "trained_by": [*record.get("trained_by", []), {"torch": self.by}]}
            )
            return super().cell(unit, on_event)

    grid = choose(plan(tmp_path), ["masked-grpo seed 0"])
    unit = next(unit for unit in grid.units if unit.name == "masked-grpo seed 0")
    with pytest.raises(KeyboardInterrupt):
        run_units(grid, Noting({unit.name: KeyboardInterrupt()}), Silent())
    Noting.by = "2"
    run_units(grid, Noting(), Silent())
    record = unit.files.record()
    assert record is not None and record.trained_by == ({"torch": "1"}, {"torch": "2"})
    assert record.versions["torch"] == unit.settings["versions"]["torch"]
    found = next(run for run in load_run(grid.root).units if run.name == unit.name)
    assert [made["torch"] for made in found.versions] == ["1", "2", record.versions["torch"]]


def test_rows_of_other_settings_are_never_judged_under_these(tmp_path) -> None:
    """Neither while the first unit runs, nor where two grids of other settings share a folder."""
    first, other = plan(tmp_path), plan(tmp_path, "train.steps=2")
    run_units(first, FakeWork(), Silent())
    cell = next(unit for unit in other.units if not unit.is_warm_start)
    with pytest.raises(KeyboardInterrupt):
        run_units(other, FakeWork({cell.name: KeyboardInterrupt()}), Silent())
    table = pq.read_table(other.root / "results.parquet")
    assert set(table.column("stage").to_pylist()) == {"warmstart"}
    first.folder.write_config()
    assert load_run(first.root).results.num_rows == 0
    assert refresh(first)
    assert load_run(first.root).results.num_rows == 6 * len(first.units)


def test_an_evaluation_that_lost_too_much_is_owed_again(tmp_path) -> None:
    grid = plan(tmp_path)
    name = grid.units[4].name

    class Losing(FakeWork):
        def _rows(self, unit):
            rows = super()._rows(unit)
            return [{**row, "fault": "environment"} if unit.name == name else row for row in rows]

    status = run_units(grid, Losing(), Silent())[name]
    assert (status.state, status.cause.split(".")[0]) == (
        "failed",
        "RolloutsLostError: 6 of 6 evaluated rollouts were lost to the environment (limit 5%)",
    )
    again = FakeWork()
    assert run_units(grid, again, Silent())[name].state == "done"
    assert again.calls == [name]


@pytest.mark.parametrize("number", [0, 1, 5])
def test_ctrl_c_loses_nothing(tmp_path, number: int) -> None:
    grid = plan(tmp_path)
    name = grid.units[number].name
    with pytest.raises(KeyboardInterrupt):
        run_units(grid, FakeWork({name: KeyboardInterrupt()}), Silent())
    assert read_status(grid.units[number].folder).state == "owed"
    rest = FakeWork()
    run_units(grid, rest, Silent())
    assert rest.calls == [unit.name for unit in grid.units[number:]]


def test_a_failing_cell_is_recorded_and_tried_again(tmp_path) -> None:
    grid = plan(tmp_path)
    name = "masked-grpo seed 0"
    statuses = run_units(grid, FakeWork({name: RuntimeError("the page burned")}), Silent())
    assert statuses[name].state == "failed"
    assert statuses[name].cause == "RuntimeError: the page burned"
    assert sum(status.state == "done" for status in statuses.values()) == len(grid.units) - 1
    assert [unit.name for unit in owed_units(grid)] == [name]
    again = FakeWork()
    assert run_units(grid, again, Silent())[name].state == "done"
    assert again.calls == [name]


def test_a_missing_browser_ends_the_grid_at_once(tmp_path) -> None:
    grid, work = plan(tmp_path), FakeWork()
    work.fail = {grid.units[0].name: BrowserMissingError("no Chromium")}
    with pytest.raises(BrowserMissingError):
        run_units(grid, work, Silent())
    assert work.calls == [grid.units[0].name]


def test_a_unit_that_another_process_holds_is_left_to_it(tmp_path) -> None:
    grid, work = plan(tmp_path), FakeWork()
    held = grid.units[3]
    held.folder.mkdir(parents=True)
    with FileLock(held.folder / ".lock"):
        statuses = run_units(grid, work, Silent())
    assert statuses[held.name].state == "running"
    assert held.name not in work.calls
    assert owed_units(grid) == [held]


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        (["masked-*"], ["warm start masked", "masked-grpo seed 0", "masked-espo seed 0", "masked-grpo seed 1"]),
        (["*-espo"], ["warm start autoregressive", "warm start masked", "autoregressive-espo seed 0"]),
        (["masked-grpo seed 1"], ["warm start masked", "masked-grpo seed 1"]),
    ],
)
def test_some_cells_first_and_the_rest_later_are_the_whole_grid(tmp_path, patterns, wanted) -> None:
    whole = plan(tmp_path / "whole")
    run_units(whole, FakeWork(), Silent())
    first, work = choose(plan(tmp_path / "parts"), patterns), FakeWork()
    assert first.config.digest == plan(tmp_path / "parts").config.digest
    statuses = run_units(first, work, Silent())
    assert work.calls[: len(wanted)] == wanted
    assert set(statuses) == set(work.calls) and owed_units(first) == []
    rest = FakeWork()
    run_units(plan(tmp_path / "parts"), rest, Silent())
    assert not set(rest.calls) & set(work.calls)
    assert is_equal(first.root / "results.parquet", whole.root / "results.parquet")


def test_a_pattern_that_names_nothing_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"--only 'maskd-\*' names no unit.*masked-grpo"):
        choose(plan(tmp_path), ["masked-*", "maskd-*"])
    with pytest.raises(ConfigError, match=r"give --only once for each"):
        choose(plan(tmp_path), ["masked-grpo,masked-espo"])


def test_kill_9_at_any_moment_ends_in_the_same_results(tmp_path) -> None:
    """A child process is killed inside a unit, and after a unit's rows but before its status."""
    undisturbed = plan(tmp_path / "undisturbed")
    run_units(undisturbed, FakeWork(), Silent())
    for moment in ("in the work", "before the status"):
        folder = tmp_path / moment.replace(" ", "_")
        process = Forked(run_until_killed, folder, moment, output=tmp_path / f"said {moment}")
        text = process.end()
        assert process.code == -signal.SIGKILL, text
        grid = plan(folder)
        assert owed_units(grid)
        assert {read_status(unit.folder).state for unit in grid.units} == {"done", "owed"}
        run_units(grid, FakeWork(), Silent())
        assert is_equal(grid.root / "results.parquet", undisturbed.root / "results.parquet")


def run_until_killed(folder: Path, moment: str) -> None:
    class Killed(FakeWork):
        def _rows(self, unit):
            rows = super()._rows(unit)
            if len(self.calls) == 4 and moment == "in the work":
                os.kill(os.getpid(), signal.SIGKILL)
            return rows

    def write(path, rows, **labels):
        original(path, rows, **labels)
        if len(work.calls) == 4 and moment == "before the status":
            os.kill(os.getpid(), signal.SIGKILL)

    original, runner.write_rows, work = runner.write_rows, write, Killed()
    runner.run_units(plan(folder), work, Silent())


def test_a_file_is_whole_or_absent(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def torn() -> None:
        with replace_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        torn()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_running_without_an_owner_is_owed(tmp_path) -> None:
    write_status(tmp_path, Status(state="running", seconds=3.0))
    assert read_status(tmp_path).state == "owed"
    assert read_status(tmp_path).seconds == 3.0
    with claim(tmp_path) as is_mine:
        assert is_mine
        assert read_status(tmp_path).state == "running"
    (tmp_path / "status.json").write_text('{"state": "do')
    assert read_status(tmp_path).state == "owed"
