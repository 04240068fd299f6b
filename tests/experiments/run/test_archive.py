"""A run carried in one file: what is finished there counts here, and what could do harm is refused."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import tarfile
from contextlib import nullcontext
from dataclasses import asdict, replace

import pytest
from typer.testing import CliRunner

from dllm_rl.errors import ConfigError
from dllm_rl.files import append_rows, read_json, write_json
from experiments.cli import app
from experiments.cli import grid as commands
from experiments.design.units import choose
from experiments.report import build_report, write_report
from experiments.run import archive
from experiments.run.archive import MANIFEST, unpack_run
from experiments.run.folder import DamagedResultError, RunFolder
from experiments.run.packing import pack_run
from experiments.run.results import is_equal, write_rows
from experiments.run.runner import Silent, begin, owed_units, run_units
from experiments.run.status import claim, read_status, write_status
from tests.experiments.grids import FakeWork, Tasks, plan, preset, task_sets
from tests.experiments.synthetic import metrics_of, write_snapshot


class Training(FakeWork):
    """Leaves behind what a training does, checkpoint and rollouts too."""

    def cell(self, unit, on_event):
        (unit.folder / "checkpoint").mkdir(parents=True, exist_ok=True)
        (unit.folder / "checkpoint" / "model.safetensors").write_bytes(bytes(1000))
        (unit.folder / "metrics.jsonl").unlink(missing_ok=True)
        append_rows(unit.folder / "metrics.jsonl", metrics_of("off_policy", 40, seed=unit.seed))
        (unit.folder / "rollouts.jsonl").write_text("x" * 300_000 if unit.seed else "{}\n")
        return super().cell(unit, on_event)


def files_of(path) -> dict[str, bytes]:
    """What an archive holds, but for its manifest."""
    with tarfile.open(path) as tar:
        found = {entry.name: tar.extractfile(entry).read() for entry in tar}
    return {name: content for name, content in found.items() if name != MANIFEST}


def write_archive(path, contents: dict[str, bytes], preset: str, grid: str, **more) -> None:
    """An archive as somebody else may write it."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    manifest = {"format": 1, "preset": preset, "grid": grid, "files": hashes, **more}
    path.write_bytes(_tar([(MANIFEST, json.dumps(manifest).encode()), *contents.items()]))


def half(folder, *names, tasks=None):
    """A grid of which only some cells have run, and one was interrupted."""
    grid = choose(plan(folder, tasks=tasks), names or ("masked-*",))
    run_units(grid, Training(), Silent())
    write_json(grid.root / "self_check.json", {"0123": {}})
    left = next(unit for unit in plan(folder, tasks=tasks).units if unit.seed == 0 and not unit.folder.exists())
    left.folder.mkdir(parents=True)
    append_rows(left.folder / "metrics.jsonl", metrics_of("healthy", 3))
    return plan(folder, tasks=tasks)


def test_half_a_grid_goes_on_elsewhere_and_ends_in_the_same_results(tmp_path) -> None:
    whole = plan(tmp_path / "whole")
    run_units(whole, Training(), Silent())
    there, here = half(tmp_path / "there"), plan(tmp_path / "here")
    done = [unit.name for unit in there.units if unit not in owed_units(there)]
    packed = pack_run(RunFolder(there.root), tmp_path / "run.tar.xz")
    assert (packed.num_units, packed.num_planned) == (len(done), len(there.units))
    said = unpack_run(tmp_path / "run.tar.xz", here.root)
    assert (said.num_new, said.num_known, said.num_judged, said.is_other) == (len(done), 0, len(done), False)
    assert is_equal(here.root / "results.parquet", there.root / "results.parquet")
    rest = Training()
    assert [unit.name for unit in owed_units(here)] == [unit.name for unit in owed_units(there)]
    run_units(here, rest, Silent())
    assert not set(rest.calls) & set(done) and len(rest.calls) + len(done) == len(here.units)
    assert is_equal(here.root / "results.parquet", whole.root / "results.parquet")


def test_the_report_is_the_same_before_and_after(tmp_path) -> None:
    there = half(tmp_path)
    warm, unit = (
        next(item for item in there.units if item.name == name) for name in ("warm start masked", "masked-grpo seed 0")
    )
    for step, place in enumerate((warm, unit)):
        write_snapshot(place.folder, step, FakeWork().warm_start(place, print)[::2])
    pack_run(RunFolder(there.root), tmp_path / "run.tar.xz")
    unpack_run(tmp_path / "run.tar.xz", tmp_path / "elsewhere")
    before, after = build_report(there.root), build_report(tmp_path / "elsewhere")
    collapsed = [cell["id"] for cell in before["cells"] if cell["seeds"][0]["diagnosis"]["is_collapsed"]]
    assert collapsed == ["masked-grpo", "masked-espo"]
    for mine, other in zip(before["cells"], after["cells"], strict=True):
        if mine["id"].startswith("masked"):
            assert mine == other
        assert mine["verdict"] == other["verdict"]
    # What was begun there and not finished is not carried.
    assert before["headline"].split(" Of ")[1] == after["headline"].split(" Of ")[1]
    assert len(after["cells"][2]["waypoints"]["tasks"]) == 3
    assert (tmp_path / "elsewhere" / unit.folder.relative_to(there.root) / "waypoints" / "step1-0.html").is_file()


def test_grid_writes_the_report_anew_where_results_came_from_elsewhere_and_only_there(tmp_path, monkeypatch) -> None:
    there = half(tmp_path / "there", "masked-*", "autoregressive-*")
    pack_run(RunFolder(there.root), tmp_path / "run.tar.xz")
    here = plan(tmp_path / "here")
    begin(here)
    write_report(here.root)
    unpack_run(tmp_path / "run.tar.xz", here.root)
    run_units(here, FakeWork(), Silent())
    monkeypatch.setattr(commands, "load_preset", lambda name, overrides: here.preset)
    monkeypatch.setattr(commands, "build_session", lambda environment: nullcontext(Tasks()))
    monkeypatch.setattr(commands, "checked_tasks", lambda preset, session, root, console: task_sets(preset))
    stale = read_json(here.root / "report.json")
    assert not stale["is_complete"]
    assert commands.run_grid("ci", [], out=here.root, is_dry_run=False) == 0
    assert read_json(here.root / "report.json")["is_complete"]
    written = (here.root / "report.json").stat().st_mtime_ns
    assert commands.run_grid("ci", [], out=here.root, is_dry_run=False) == 0
    assert (here.root / "report.json").stat().st_mtime_ns == written
    monkeypatch.setattr(commands, "load_preset", lambda name, overrides: preset(tmp_path / "here", *overrides))
    assert commands.run_grid("ci", ["evaluation.margin=40"], out=here.root, is_dry_run=False) == 0
    assert read_json(here.root / "report.json")["evaluation"]["margin"] == 40
    monkeypatch.setattr(commands, "load_preset", lambda name, overrides: here.preset)
    write_json(here.root / "config.json", {"grid": "of another version"})
    assert commands.run_grid("ci", [], out=here.root, is_dry_run=False) == 0
    assert RunFolder(here.root).config == here.config


def test_no_checkpoint_no_large_rollouts_and_nothing_unfinished_is_packed(tmp_path) -> None:
    there = half(tmp_path)
    packed = pack_run(RunFolder(there.root), tmp_path / "run.tar.xz")
    assert packed.left_out == {"training rollouts": 600_000}
    names = files_of(tmp_path / "run.tar.xz")
    assert not [name for name in names if "checkpoint" in name or "autoregressive-grpo" in name]
    assert len([name for name in names if name.endswith("rollouts.jsonl")]) == 2
    pack_run(RunFolder(there.root), tmp_path / "all.tar.xz", with_rollouts=True)
    names = files_of(tmp_path / "all.tar.xz")
    assert len([name for name in names if name.endswith("rollouts.jsonl")]) == 4
    assert packed.num_bytes == (tmp_path / "run.tar.xz").stat().st_size < 60_000 * packed.num_units


def test_what_is_packed_can_be_unpacked(tmp_path, monkeypatch) -> None:
    """Rollouts are added as far as the whole stays below what `unpack` reads."""
    there = half(tmp_path)
    run, path = RunFolder(there.root), tmp_path / "run.tar.xz"
    pack_run(run, path)
    small = sum(map(len, files_of(path).values()))
    monkeypatch.setattr(archive, "MAX_BYTES", small + 310_000)
    packed = pack_run(run, path, with_rollouts=True)
    assert packed.left_out == {"training rollouts": 300_000}
    assert unpack_run(path, tmp_path / "elsewhere").num_new == packed.num_units
    monkeypatch.setattr(archive, "MAX_BYTES", small - 1000)
    with pytest.raises(ConfigError, match="Copy the folder instead"):
        pack_run(run, tmp_path / "none.tar.xz")
    assert not (tmp_path / "none.tar.xz").exists()


def test_equal_contents_give_equal_bytes(tmp_path) -> None:
    there = half(tmp_path)
    pack_run(RunFolder(there.root), tmp_path / "one.tar.xz")
    for path in there.root.rglob("*"):
        path.touch()
    pack_run(RunFolder(there.root), tmp_path / "two.tar.xz")
    assert (tmp_path / "one.tar.xz").read_bytes() == (tmp_path / "two.tar.xz").read_bytes()
    unpack_run(tmp_path / "one.tar.xz", tmp_path / "elsewhere")
    pack_run(RunFolder(tmp_path / "elsewhere"), tmp_path / "three.tar.xz")
    assert (tmp_path / "one.tar.xz").read_bytes() == (tmp_path / "three.tar.xz").read_bytes()


def test_what_is_there_already_stays_and_the_rest_is_added(tmp_path) -> None:
    there, here = half(tmp_path / "there"), plan(tmp_path / "here")
    pack_run(RunFolder(there.root), tmp_path / "run.tar.xz")
    # The same units were run here too, at other speeds.
    work = Training()
    work.calls = ["slow"] * 50
    run_units(choose(here, ["masked-grpo"]), work, Silent())
    assert [unpack_run(tmp_path / "run.tar.xz", here.root).num_known for _ in range(2)] == [3, 5]
    assert [unit.name for unit in owed_units(here)] == [unit.name for unit in owed_units(there)]


def test_a_finished_unit_with_other_rollouts_is_not_overwritten(tmp_path) -> None:
    class Other(FakeWork):
        def _rows(self, unit):
            return [{**row, "reward": 0.25} for row in super()._rows(unit)]

    there, here = half(tmp_path / "there"), plan(tmp_path / "here")
    pack_run(RunFolder(there.root), tmp_path / "run.tar.xz")
    run_units(choose(here, ["masked-grpo seed 1"]), Other(), Silent())
    before = {path: path.read_bytes() for path in here.root.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"finished with other rollouts.*Nothing was written"):
        unpack_run(tmp_path / "run.tar.xz", here.root)
    assert {path: path.read_bytes() for path in here.root.rglob("*") if path.is_file()} == before


def test_a_unit_of_other_settings_is_owed(tmp_path) -> None:
    there, other = half(tmp_path / "there"), plan(tmp_path / "here", tasks=Tasks("!"))
    pack_run(RunFolder(there.root), tmp_path / "run.tar.xz")
    begin(other)
    said = unpack_run(tmp_path / "run.tar.xz", other.root)
    assert said.is_other and said.num_judged == 0
    assert owed_units(other) == list(other.units)
    assert read_json(other.root / "config.json")["digest"] == other.config.digest


def test_another_evaluation_of_the_same_training_stays(tmp_path) -> None:
    there = half(tmp_path / "there")
    pack_run(RunFolder(there.root), tmp_path / "run.tar.xz")
    other = plan(tmp_path / "here", "evaluation.max_tasks=2")
    run_units(other, Training(), Silent())
    unpack_run(tmp_path / "run.tar.xz", other.root)
    assert owed_units(other) == []
    same = plan(tmp_path / "here")
    assert [unit.name for unit in owed_units(same)] == [unit.name for unit in owed_units(there)]
    assert all((unit.folder / "checkpoint").is_dir() for unit in other.units if not unit.is_warm_start)


def test_a_unit_that_a_process_works_on_is_left_to_it(tmp_path) -> None:
    there, here = half(tmp_path / "there"), plan(tmp_path / "here")
    pack_run(RunFolder(there.root), tmp_path / "run.tar.xz")
    held = next(unit for unit in here.units if unit.name == "masked-grpo seed 0")
    with claim(held.folder):
        before = set(here.root.rglob("*"))
        with pytest.raises(ConfigError, match="a process works on"):
            unpack_run(tmp_path / "run.tar.xz", here.root)
        assert set(here.root.rglob("*")) == before
    assert owed_units(here) == list(here.units)


def test_another_presets_folder_and_another_self_check_are_refused(tmp_path) -> None:
    there = half(tmp_path / "there")
    pack_run(RunFolder(there.root), tmp_path / "run.tar.xz")
    write_json(tmp_path / "other" / "config.json", read_json(there.root / "config.json") | {"preset": "other"})
    with pytest.raises(ConfigError, match="is a run of 'other'"):
        unpack_run(tmp_path / "run.tar.xz", tmp_path / "other")
    write_json(tmp_path / "checked" / "self_check.json", {"0123": {"val/form-1-0": "broken"}, "9": {}})
    with pytest.raises(ConfigError, match=r"self-check.*left out"):
        unpack_run(tmp_path / "run.tar.xz", tmp_path / "checked")
    write_json(tmp_path / "checked" / "self_check.json", {"9": {}})
    unpack_run(tmp_path / "run.tar.xz", tmp_path / "checked")
    assert read_json(tmp_path / "checked" / "self_check.json") == {"0123": {}, "9": {}}


def test_nothing_finished_and_damage_are_errors_when_packing(tmp_path) -> None:
    grid = plan(tmp_path)
    begin(grid)
    with pytest.raises(ConfigError, match=r"nothing in .* is finished yet"):
        pack_run(RunFolder(grid.root), tmp_path / "run.tar.xz")
    run_units(grid, FakeWork(), Silent())
    with grid.units[3].files.rows_file.open("ab") as file:
        file.write(b"x")
    with pytest.raises(DamagedResultError, match="does not match its recorded hash"):
        pack_run(RunFolder(grid.root), tmp_path / "run.tar.xz")
    assert not (tmp_path / "run.tar.xz").exists()


@pytest.mark.parametrize("at", [3, 40, 1000, -1000, -3])
def test_damaged_bytes_are_refused(tmp_path, at: int) -> None:
    there = half(tmp_path)
    path = tmp_path / "run.tar.xz"
    pack_run(RunFolder(there.root), path)
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="Nothing was written"):
        unpack_run(path, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_a_torn_file_a_foreign_one_and_none_are_told_apart(tmp_path) -> None:
    there = half(tmp_path)
    path = tmp_path / "run.tar.xz"
    pack_run(RunFolder(there.root), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="is damaged"):
        unpack_run(path)
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").write_text("")
    (tmp_path / "text.xz").write_bytes(lzma.compress(b"hello"))
    (tmp_path / "other.tar.xz").write_bytes(_tar([("README.md", b"another project")]))
    for name in ("text", "empty", "text.xz", "other.tar.xz"):
        with pytest.raises(ConfigError, match="is not an archive of `dllm-rl pack`"):
            unpack_run(tmp_path / name)
    with pytest.raises(ConfigError, match=r"there is no file.*dllm-rl pack"):
        unpack_run(tmp_path / "none")
    with pytest.raises(ConfigError, match="is a folder"):
        unpack_run(tmp_path)


def _tar(parts: list[tuple[str, bytes]], kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number, (name, content) in enumerate(parts):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            if number and kind != tarfile.REGTYPE:
                entry.type, entry.linkname, entry.size = kind, "/etc/passwd", 0
            tar.addfile(entry, io.BytesIO(content))
    return lzma.compress(buffer.getvalue())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../outside", "would lie elsewhere"),
        ("/outside", "would lie elsewhere"),
        ("cells/../../outside/seed0/status.json", "would lie elsewhere"),
        ("cells/a-1/seed0/checkpoint/model.safetensors", "not a file of a finished unit"),
        ("warmstart/.hidden/status.json", "not a file of a finished unit"),
        ("report.html", "not a file of a finished unit"),
    ],
)
def test_a_name_that_is_not_a_file_of_a_run_is_refused(tmp_path, name: str, message: str) -> None:
    there = half(tmp_path / "there")
    pack_run(RunFolder(there.root), tmp_path / "run.tar.xz")
    contents = {**files_of(tmp_path / "run.tar.xz"), name: b"x"}
    write_archive(tmp_path / "bad.tar.xz", contents, there.config.preset, there.config.digest)
    with pytest.raises(ConfigError, match=f"{message}.*Nothing was written"):
        unpack_run(tmp_path / "bad.tar.xz", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"bad.tar.xz", "run.tar.xz", "there"}


def test_unpacking_needs_no_filter_of_tarfile(tmp_path, monkeypatch) -> None:
    """Python 3.11 has them from its fourth patch release on."""
    monkeypatch.delattr(tarfile, "FilterError", raising=False)
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    monkeypatch.delattr(tarfile.TarFile, "extract")
    there = half(tmp_path / "there")
    pack_run(RunFolder(there.root), tmp_path / "run.tar.xz")
    assert unpack_run(tmp_path / "run.tar.xz", tmp_path / "out").num_new == len(RunFolder(there.root).finished())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind: bytes) -> None:
    parts = [(MANIFEST, b"{}"), ("config.json", b"")]
    (tmp_path / "bad.tar.xz").write_bytes(_tar(parts, kind))
    with pytest.raises(ConfigError, match="not a plain file"):
        unpack_run(tmp_path / "bad.tar.xz", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_lies_about_itself_is_refused(tmp_path, monkeypatch) -> None:
    """Rows that are not what their status recorded, a configuration that leads out of the folder, and a huge file."""
    there = half(tmp_path)
    pack_run(RunFolder(there.root), tmp_path / "run.tar.xz")
    good, preset, grid = files_of(tmp_path / "run.tar.xz"), there.config.preset, there.config.digest

    def refuses(match: str, changed: dict[str, bytes], **more) -> None:
        write_archive(tmp_path / "bad.tar.xz", {**good, **changed}, preset, grid, **more)
        with pytest.raises(ConfigError, match=f"(?s){match}"):
            unpack_run(tmp_path / "bad.tar.xz", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    rows = next(name for name in good if name.endswith(".parquet"))
    refuses("do not match their recorded hash", {rows: good[rows] + b"x"})
    config = json.loads(good["config.json"])
    refuses("not its own", {"config.json": json.dumps(config | {"digest": "another"}).encode()})
    refuses("no configuration.*seeds", {"config.json": json.dumps(config | {"seeds": ["0/../../.."]}).encode()})
    refuses(
        "no configuration.*warm_starts", {"config.json": json.dumps(config | {"warm_starts": {"a": "../a"}}).encode()}
    )
    refuses("no configuration", {"config.json": b"[]"})
    refuses("no configuration.*preset", {"config.json": json.dumps(config | {"preset": "../../elsewhere"}).encode()})
    status = next(name for name in good if name.endswith("status.json"))
    refuses("not a file of a finished unit", {status: b'{"state": "done"}'})
    refuses("format 2, and this version reads 1", {}, format=2)
    monkeypatch.setattr(archive, "MAX_BYTES", 10_000)
    refuses("unpacks to over", {})


def test_a_failed_unit_that_comes_finished_is_no_failure_any_more(tmp_path) -> None:
    there, here = half(tmp_path / "there"), plan(tmp_path / "here")
    pack_run(RunFolder(there.root), tmp_path / "run.tar.xz")
    run_units(choose(here, ["masked-espo seed 1"]), FakeWork({"masked-espo seed 1": RuntimeError("burned")}), Silent())
    failed = next(unit for unit in here.units if unit.name == "masked-espo seed 1")
    assert read_status(failed.folder).state == "failed" and (failed.folder / "failure.txt").is_file()
    unpack_run(tmp_path / "run.tar.xz", here.root)
    assert read_status(failed.folder).state == "done" and not (failed.folder / "failure.txt").exists()


def test_nothing_of_a_training_that_was_begun_here_is_mixed_with_the_one_laid_down(tmp_path) -> None:
    there, here = half(tmp_path / "there"), plan(tmp_path / "here")
    pack_run(RunFolder(there.root), tmp_path / "run.tar.xz")
    run_units(choose(here, ["masked-grpo seed 1"]), Training({"masked-grpo seed 1": RuntimeError("burned")}), Silent())
    begun = next(unit for unit in here.units if unit.name == "masked-grpo seed 1").folder
    (begun / ".checkpoint.old").mkdir()
    write_snapshot(begun, 0, FakeWork().warm_start(here.units[0], print))
    unpack_run(tmp_path / "run.tar.xz", here.root)
    packed = {name for name in files_of(tmp_path / "run.tar.xz") if "masked-grpo" in name and "seed1" in name}
    found = {str(path.relative_to(here.root)) for path in begun.rglob("*") if path.name != ".lock" and path.is_file()}
    assert found == {name for name in packed if "null" not in name} and not list(begun.glob("*checkpoint*"))


def test_a_damaged_unit_of_the_folder_gets_into_no_results(tmp_path) -> None:
    there, here = half(tmp_path / "there"), plan(tmp_path / "here")
    pack_run(RunFolder(there.root), tmp_path / "run.tar.xz")
    run_units(choose(here, ["autoregressive-grpo seed 0"]), FakeWork(), Silent())
    damaged = next(unit for unit in here.units if unit.name == "autoregressive-grpo seed 0")
    other = next(unit for unit in here.units if unit.name == "warm start autoregressive")
    write_rows(damaged.files.rows_file, FakeWork().warm_start(other, print), **damaged.labels)
    before = set(here.root.rglob("*"))
    with pytest.raises(DamagedResultError, match="does not match its recorded hash"):
        unpack_run(tmp_path / "run.tar.xz", here.root)
    assert set(here.root.rglob("*")) == before


def test_places_that_cannot_be_written_are_one_message(tmp_path) -> None:
    there = half(tmp_path / "there")
    with pytest.raises(ConfigError, match=r"is a folder. Give --out a file, such as"):
        pack_run(RunFolder(there.root), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written .*Give another file with --out"):
        pack_run(RunFolder(there.root), tmp_path / "file" / "run.tar.xz")
    pack_run(RunFolder(there.root), tmp_path / "run.tar.xz")
    for place in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(ConfigError, match=r"cannot be the folder of a run .*Give another with --out"):
            unpack_run(tmp_path / "run.tar.xz", place)
    config = read_json(there.root / "config.json")
    del config["cells"][1]["digest"]
    write_json(there.root / "config.json", config)
    with pytest.raises(ConfigError, match=r"(?s)cells.1.digest: missing.*grid's own"):
        pack_run(RunFolder(there.root), tmp_path / "again.tar.xz")


def test_a_unit_that_is_evaluated_anew_is_packed_as_it_was_finished(tmp_path) -> None:
    there = half(tmp_path)
    unit = next(unit for unit in there.units if unit.name == "masked-grpo seed 0")
    status = read_status(unit.folder)
    write_status(unit.folder, replace(status, state="running", pid=7, evaluations={**status.evaluations, "feed": "0"}))
    pack_run(RunFolder(there.root), tmp_path / "run.tar.xz")
    unpack_run(tmp_path / "run.tar.xz", tmp_path / "elsewhere")
    found = read_status(tmp_path / "elsewhere" / unit.folder.relative_to(there.root))
    assert asdict(found) == asdict(replace(status, cause=found.cause, pid=0))


def test_the_commands(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    there = half(tmp_path)
    run = CliRunner()
    done = run.invoke(app, ["pack", str(there.root)])
    file = tmp_path / f"ci-{there.config.digest[:8]}.tar.xz"
    assert done.exit_code == 0 and file.is_file(), done.output
    assert (
        "5 of 12 units are finished" in done.output and "left out, too large: training rollouts, 0.6 MB" in done.output
    )
    done = run.invoke(app, ["unpack", file.name])
    assert done.exit_code == 0 and "5 units unpacked, 0 were there already" in done.output
    assert (tmp_path / "runs" / "ci" / "config.json").is_file()
    done = run.invoke(app, ["report", "ci"])
    assert done.exit_code == 0, done.output
