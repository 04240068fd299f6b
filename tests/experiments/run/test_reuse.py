"""What another run finished under the same digest is taken from there, and nothing else is."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from dllm_rl.errors import ConfigError
from dllm_rl.files import read_json, write_json
from experiments.report.build import build_report
from experiments.report.load import load_run
from experiments.run import reuse
from experiments.run.folder import CHECKPOINT, DamagedResultError, RunFolder
from experiments.run.results import TIMING_COLUMNS
from experiments.run.reuse import find_matches, reuse_units
from experiments.run.runner import Silent, owed_units, run_units
from tests.experiments.cli.test_cli import said
from tests.experiments.grids import FakeWork, plan

RENAMED = (
    "objectives.plain={name: grpo, options: {advantage: centred, beta: 0.0, clip_low: 0.2, clip_high: 0.2}}",
    "objectives=[plain,espo]",
    "controls=[]",
)


class KeepsCheckpoints(FakeWork):
    """Leaves the files of a training that a real executor leaves."""

    def cell(self, unit, on_event):
        (unit.folder / CHECKPOINT).mkdir(exist_ok=True)
        (unit.folder / CHECKPOINT / "model.safetensors").write_bytes(unit.name.encode())
        write_json(unit.folder / CHECKPOINT / "state.json", {"step": unit.cell.train["steps"], "files": {}})
        steps = [{"step": step, "loss/total": 0.0} for step in range(unit.cell.train["steps"])]
        (unit.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
        return super().cell(unit, on_event)


@pytest.fixture
def finished(tmp_path):
    grid = plan(tmp_path / "first")
    run_units(grid, KeepsCheckpoints(), Silent())
    return grid


def test_equal_units_are_taken_under_the_names_of_this_grid(finished, tmp_path):
    other = plan(tmp_path / "other", *RENAMED)
    matches = find_matches(other, RunFolder(finished.root))
    reuse_units(matches, RunFolder(finished.root))
    assert owed_units(other) == []
    assert len(matches) == len(other.units)
    work = KeepsCheckpoints()
    run_units(other, work, Silent())
    assert work.calls == []
    tables = {}
    for root in (finished.root, other.root):
        rows = pq.read_table(root / "results.parquet").drop_columns([*TIMING_COLUMNS, "objective"]).to_pylist()
        tables[root] = {
            (row["cell"].replace("-plain", "-grpo"), row["seed"], row["task_id"], row["mode"]): {**row, "cell": ""}
            for row in rows
            if not row["cell"].startswith("null-")
        }
    assert tables[finished.root] == tables[other.root]
    assert set(pq.read_table(other.root / "results.parquet")["objective"].to_pylist()) == {"", "plain", "espo"}
    run = next(item for item in load_run(other.root).units if item.name == "masked-plain seed 1")
    assert run.metrics == finished.units[-1].files.metrics()
    sentence = build_report(other.root)["taken"]
    assert f"{len(other.units)} from ci {finished.config.digest}" in sentence


def test_what_trained_a_unit_is_known_where_it_is_taken(finished, tmp_path):
    trained = next(unit for unit in finished.units if not unit.is_warm_start)
    record = {**read_json(trained.folder / "cell.json"), "trained_by": [{"torch": "1"}, {"torch": "2"}]}
    write_json(trained.folder / "cell.json", record)
    other = plan(tmp_path / "other", *RENAMED)
    reuse_units(find_matches(other, RunFolder(finished.root)), RunFolder(finished.root))
    records = [unit.files.record() for unit in other.units]
    assert ({"torch": "1"}, {"torch": "2"}) in [record.trained_by for record in records if record is not None]


def test_other_settings_and_other_seeds_are_run(finished, tmp_path):
    source = RunFolder(finished.root)
    other = plan(tmp_path / "other", "train.max_grad_norm=0.5")
    assert {match.unit.seed for match in find_matches(other, source)} == {None}
    more = plan(tmp_path / "more", "seeds=[1,2]")
    assert {match.unit.seed for match in find_matches(more, source)} == {None, 1}


def test_what_was_evaluated_otherwise_is_only_evaluated_anew(finished, tmp_path):
    other = plan(tmp_path / "other", "evaluation.max_tasks=2")
    matches = find_matches(other, RunFolder(finished.root))
    assert {match.is_evaluated for match in matches} == {False}
    assert {match.unit.name for match in matches} == {unit.name for unit in other.units if not unit.is_warm_start}
    reuse_units(matches, RunFolder(finished.root))
    unit = matches[0].unit
    assert (unit.folder / CHECKPOINT / "model.safetensors").read_bytes() == unit.name.encode()
    assert unit.files.status.state == "owed"
    assert len(owed_units(other)) == len(other.units)
    assert run_units(other, FakeWork(), Silent())[unit.name].taken_from == f"ci {finished.config.digest}"


def test_what_was_finished_here_stays_finished_and_its_policy_stays(finished, tmp_path):
    """The same grid was run here under another evaluation; from the other run come rows alone."""
    here = plan(tmp_path / "other", "evaluation.max_tasks=2")
    run_units(here, KeepsCheckpoints(), Silent())
    wanted = plan(tmp_path / "other")
    cell = next(unit for unit in wanted.units if not unit.is_warm_start)
    weights = cell.folder / CHECKPOINT / "model.safetensors"
    weights.write_bytes(b"trained here")
    matches = find_matches(wanted, RunFolder(finished.root))
    assert {match.unit.name for match in matches} == {unit.name for unit in wanted.units}
    reuse_units(matches, RunFolder(finished.root))
    assert owed_units(wanted) == [] and weights.read_bytes() == b"trained here"
    assert cell.files.status.taken_from == ""
    assert owed_units(here) == [], "evaluations that were finished here were forgotten"
    work = KeepsCheckpoints()
    run_units(here, work, Silent())
    assert work.calls == []


def test_a_whole_training_is_only_taken_where_there_is_none(finished, tmp_path):
    here = plan(tmp_path / "other", "evaluation.max_tasks=2")
    run_units(here, KeepsCheckpoints(), Silent())
    third = plan(tmp_path / "other", "evaluation.max_tasks=1")
    assert find_matches(third, RunFolder(finished.root)) == []


def test_a_kill_in_the_copy_leaves_the_policy_that_lay_here(finished, tmp_path, monkeypatch):
    other, source = plan(tmp_path / "other"), RunFolder(finished.root)
    (unit, *_) = [unit for unit in other.units if not unit.is_warm_start]
    half = unit.folder / CHECKPOINT
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half way")
    write_json(half / "state.json", {"step": 0, "files": {}})
    copied = reuse.shutil.copytree

    def killed(start, *arguments, **options):
        if start.name == CHECKPOINT:
            raise KeyboardInterrupt
        return copied(start, *arguments, **options)

    monkeypatch.setattr(reuse.shutil, "copytree", killed)
    matches = [match for match in find_matches(other, source) if match.unit.name == unit.name]
    with pytest.raises(KeyboardInterrupt):
        reuse_units(matches, source)
    assert (half / "model.safetensors").read_bytes() == b"half way"
    assert len(unit.files.metrics()) == unit.cell.train["steps"]
    monkeypatch.undo()
    matches = [match for match in find_matches(other, source) if match.unit.name == unit.name]
    reuse_units(matches, source)
    assert (half / "model.safetensors").read_bytes() == unit.name.encode()
    assert [path.name for path in unit.folder.glob("checkpoint*")] == [CHECKPOINT]


def test_training_without_its_policy_is_of_no_use_to_another_evaluation(finished, tmp_path):
    other = plan(tmp_path / "other", "evaluation.max_tasks=2")
    for unit in finished.units:
        (unit.folder / CHECKPOINT).rename(unit.folder / "gone") if (unit.folder / CHECKPOINT).is_dir() else None
    assert find_matches(other, RunFolder(finished.root)) == []


def test_unfinished_training_is_not_taken(finished, tmp_path):
    other = plan(tmp_path / "other", "evaluation.max_tasks=2")
    first, second = (unit for unit in finished.units if unit.name in ("masked-grpo seed 0", "masked-espo seed 0"))
    (first.folder / "metrics.jsonl").write_text("")
    (second.folder / "checkpoint.new").mkdir()
    names = {match.unit.name for match in find_matches(other, RunFolder(finished.root))}
    assert {first.name, second.name}.isdisjoint(names)
    assert len(names) == len([unit for unit in finished.units if not unit.is_warm_start]) - 2


def test_a_kill_in_the_copy_leaves_no_policy_without_its_curves(finished, tmp_path, monkeypatch):
    other, source = plan(tmp_path / "other"), RunFolder(finished.root)
    copied = reuse.shutil.copytree

    def killed(start, *arguments, **options):
        if start.name == CHECKPOINT:
            copied(start, *arguments, **options)
            raise KeyboardInterrupt
        return copied(start, *arguments, **options)

    monkeypatch.setattr(reuse.shutil, "copytree", killed)
    matches = [match for match in find_matches(other, source) if not match.unit.is_warm_start]
    with pytest.raises(KeyboardInterrupt):
        reuse_units(matches, source)
    unit = matches[0].unit
    assert not (unit.folder / CHECKPOINT).exists() and not list(unit.folder.glob(".taken-*"))
    assert unit.files.metrics() and unit.files.status.state == "owed"


def test_the_grid_that_trained_is_named_however_often_it_is_taken(finished, tmp_path):
    second, third = plan(tmp_path / "second"), plan(tmp_path / "third", *RENAMED)
    reuse_units(find_matches(second, RunFolder(finished.root)), RunFolder(finished.root))
    run_units(second, FakeWork(), Silent())
    reuse_units(find_matches(third, RunFolder(second.root)), RunFolder(second.root))
    assert {unit.files.status.taken_from for unit in third.units} == {f"ci {finished.config.digest}"}


def test_a_damaged_result_is_refused(finished, tmp_path):
    path = finished.units[-1].files.rows_file
    path.write_bytes(path.read_bytes() + b" ")
    other = plan(tmp_path / "other")
    matches = find_matches(other, RunFolder(finished.root))
    with pytest.raises(DamagedResultError, match="does not match its recorded hash"):
        reuse_units(matches, RunFolder(finished.root))


def test_a_run_is_not_taken_from_itself(finished):
    with pytest.raises(ConfigError, match="the folder that this grid is run in"):
        find_matches(finished, RunFolder(finished.root))


@pytest.mark.slow
def test_the_command_says_what_it_takes_and_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ("toy_sort", "policies=[masked]", "objectives=[grpo]", "controls={}", "seeds=[0]", "train.steps=1")
    command = ("grid", *small, "evaluation.max_tasks=2", "--workers", "1")
    code, _, errors = said((*command, "--out", "runs/first"), monkeypatch, capsys)
    assert code == 0, errors
    code, shown, errors = said((*command, "--out", "runs/second", "--reuse", "first"), monkeypatch, capsys)
    assert code == 0, errors
    assert "runs/first has 2 of 2 owed units under the same settings" in " ".join(shown.split())
    trained = [(tmp_path / "runs" / name / "results.parquet") for name in ("first", "second")]
    first, second = (pq.read_table(path).to_pylist() for path in trained)
    assert first == second
