"""Comparing runs: a planted difference is found in its cell alone, and a run does not differ from itself."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from experiments.analysis.comparison import compare_runs
from experiments.cli.compare import changed_settings
from tests.experiments.cli.test_cli import said
from tests.experiments.synthetic import write_run

CELLS = ("masked-grpo", "masked-espo")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    shape = {
        "seeds": (0, 1, 2),
        "num_steps": 4,
        "num_tasks": 40,
        "policies": ("masked",),
        "objectives": ("grpo", "espo"),
    }
    first = write_run(folder / "first", **shape)
    return first, write_run(folder / "second", effects={"masked-espo": 25.0}, **shape)


def test_a_planted_difference_is_found_in_its_cell_alone(runs: tuple[Path, Path]) -> None:
    first, second = (pq.read_table(run / "results.parquet") for run in runs)
    grpo, espo = compare_runs(first, second, CELLS)
    assert espo.call == "higher" and espo.test is not None and espo.test.low < 25 < espo.test.high + 5
    assert grpo.call in ("equivalent", "inconclusive")
    assert (espo.num_seeds, espo.num_tasks) == (3, 40)
    assert compare_runs(second, first, CELLS)[1].call == "lower"


def test_a_run_does_not_differ_from_itself(runs: tuple[Path, Path]) -> None:
    table = pq.read_table(runs[0] / "results.parquet")
    for found in compare_runs(table, table, CELLS):
        assert found.call == "equivalent" and found.test is not None
        assert (found.test.mean, found.test.low, found.test.high) == (0, 0, 0)


def test_two_tables_that_are_equal_in_success_alone_may_differ_elsewhere(runs: tuple[Path, Path]) -> None:
    """Of a few tasks that fail in both runs nothing follows; other plans were written."""
    table = pq.read_table(runs[0] / "results.parquet")
    few = table.filter(pc.is_in(table["task_id"], pa.array(["val-0000", "val-0001"])))
    few = few.set_column(few.column_names.index("success"), "success", pa.array([False] * few.num_rows))
    plans = pa.array([f"{plan} " for plan in few["plan"].to_pylist()])
    (found,) = compare_runs(few, few.set_column(few.column_names.index("plan"), "plan", plans), CELLS[:1])
    assert found.call == "inconclusive" and found.test is not None and found.test.mean == 0 < found.test.high


def test_percentages_are_of_what_was_paired(runs: tuple[Path, Path]) -> None:
    """The second run lacks a seed, and half of another seed's tasks are lost."""
    first, second = (pq.read_table(run / "results.parquet") for run in runs)
    second = second.filter(pc.not_equal(second["seed"], 2))
    is_lost = pc.and_(pc.equal(second["seed"], 1), pc.less(second["task_id"], "val-0020"))
    second = second.set_column(
        second.column_names.index("fault"), "fault", pc.if_else(is_lost, "environment", second["fault"])
    )
    found = compare_runs(first, second, CELLS)[1]
    assert (found.num_seeds, found.num_tasks, found.is_provisional) == (2, 20, True)
    assert found.first is not None and found.second is not None and found.test is not None
    assert found.second - found.first == pytest.approx(found.test.mean)
    kept = pc.and_(pc.equal(first["cell"], CELLS[1]), pc.equal(first["mode"], "sampled"))
    kept = pc.and_(kept, pc.and_(pc.less(first["seed"], 2), pc.greater_equal(first["task_id"], "val-0020")))
    rows = first.filter(pc.and_(kept, pc.equal(first["fault"], "none")))
    assert found.first == pytest.approx(100 * pc.mean(rows["success"].cast("int8")).as_py(), abs=1.0)


def test_a_cell_that_one_run_has_not_finished_is_not_paired(runs: tuple[Path, Path]) -> None:
    table = pq.read_table(runs[0] / "results.parquet")
    (found,) = compare_runs(table, table.slice(0, 0), CELLS[:1])
    assert (found.call, found.second, found.test, found.is_provisional) == ("unpaired", None, None, False)


def test_settings_that_differ_are_told_by_their_names() -> None:
    first = {"name": "a", "train": {"steps": 4, "rate": 1.0}, "seeds": [0]}
    second = {"name": "b", "train": {"steps": 6, "rate": 1.0}, "seeds": [0], "threads": 1}
    assert changed_settings(first, second) == {"train.steps": (4, 6), "threads": (None, 1)}


def test_the_command_prints_and_speaks_json(runs: tuple[Path, Path], tmp_path: Path, monkeypatch, capsys) -> None:
    first, second = map(str, runs)
    code, shown, _ = said(("compare", first, second), monkeypatch, capsys)
    (line,) = [line for line in shown.splitlines() if line.startswith("masked-espo")]
    assert (code, "higher" in line, "3 x 40" in line) == (0, True, True)
    assert "Provisional: under five seeds." in shown and "…" not in shown
    record = json.loads(said(("compare", first, second, "--json"), monkeypatch, capsys)[1])
    assert [cell["cell"] for cell in record["cells"]][:2] == list(CELLS)
    other = write_run(
        tmp_path / "other", seeds=(0,), num_steps=4, num_tasks=4, policies=("flow",), objectives=("grpo",)
    )
    code, _, errors = said(("compare", first, str(other)), monkeypatch, capsys)
    assert code == 2 and "have no cell in common" in errors
