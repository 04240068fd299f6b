"""Workers on this machine: the results of one process, a killed worker, Ctrl-C and SIGTERM, one word on a failure."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from dllm_rl.errors import ConfigError
from experiments.design.config import build_session
from experiments.design.units import TaskSets
from experiments.run import processes
from experiments.run.cell import LocalExecutor
from experiments.run.memory import available_gigabytes
from experiments.run.processes import SECONDS_A_WORKER, LocalWorkers, number_of_workers, run_units_in_processes
from experiments.run.results import is_equal
from experiments.run.runner import Silent, run_units
from experiments.run.status import read_status
from tests.experiments.grids import FakeWork, preset
from tests.experiments.grids import plan as fake_plan
from tests.experiments.run.test_ray import SECONDS, Told, grid, is_gone, kill_once_it_trains, launch, overrides
from tests.processes import SERVER, Forked, command, descendants


@pytest.mark.parametrize(
    ("cores", "gigabytes", "asked", "expected"),
    [
        (4, 64, None, 4),
        (4, 64, 2, 2),
        (4, 64, 1, 1),
        (64, 64, None, 12),
        (1, 64, None, 1),
        (8, 4.6, None, 3),
        (8, 1, None, 1),
        (8, 1, 4, 4),
    ],
)
def test_one_worker_a_core_and_a_unit_that_memory_has_room_for(
    tmp_path, monkeypatch, cores, gigabytes, asked, expected
):
    monkeypatch.setattr("harness.browser.usable_cores", lambda: cores)
    monkeypatch.setattr("experiments.run.processes.available_gigabytes", lambda: gigabytes)
    monkeypatch.setattr("experiments.run.processes.SECONDS_A_WORKER", 0.1)
    grid = fake_plan(tmp_path)
    assert len(grid.units) == 12
    assert number_of_workers(grid.preset, asked, grid.units) == expected


@pytest.mark.parametrize(
    ("folder", "names", "cache"),
    [
        ("", ("memory.max", "memory.current"), "inactive_file"),
        ("memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file"),
    ],
)
def test_the_limit_of_a_container_counts(tmp_path, monkeypatch, folder, names, cache):
    monkeypatch.setattr("experiments.run.memory._GROUPS", tmp_path)
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "memory.stat").write_text(f"anon 7\n{cache} 100000000\n")
    for name, figure in zip(names, ("400000000", "300000000"), strict=True):
        (tmp_path / folder / name).write_text(f"{figure}\n")
    assert available_gigabytes() == 0.2
    (tmp_path / folder / names[0]).write_text("max\n")
    assert available_gigabytes() > 0.2


def test_policies_on_an_accelerator_share_it(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.browser.usable_cores", lambda: 8)
    monkeypatch.setattr("experiments.run.processes.SECONDS_A_WORKER", 0.1)
    units = fake_plan(tmp_path).units
    on_device = preset(tmp_path, "policies.masked.device=cuda")
    assert number_of_workers(on_device, None, units) == 1
    assert number_of_workers(on_device, 2, units) == 2


def test_work_that_is_over_in_a_minute_starts_no_worker(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.browser.usable_cores", lambda: 4)
    grid = fake_plan(tmp_path)
    few = grid.units[:1]
    assert sum(unit.cost.seconds for unit in few) < 2 * SECONDS_A_WORKER
    assert number_of_workers(grid.preset, None, few) == 1


def test_several_workers_need_a_number_of_threads(tmp_path):
    free = preset(tmp_path, "threads=null")
    assert number_of_workers(free, None, ()) == number_of_workers(free, 1, ()) == 1
    with pytest.raises(ConfigError, match=r"--workers 2 was given.*Add threads=1"):
        number_of_workers(free, 2, ())


def test_a_worker_that_someone_tells_to_end_has_died(tmp_path, monkeypatch):
    """Forked, so that its work is one that waits."""
    unit, told = fake_plan(tmp_path).units[0], []

    def wait_for_the_signal(launch, progress):
        progress.event(unit, {"step": 0})
        time.sleep(SECONDS)

    monkeypatch.setattr(processes, "_CONTEXT", multiprocessing.get_context("fork"))
    monkeypatch.setattr(processes, "work", wait_for_the_signal)
    workers = LocalWorkers(launch(fake_plan(tmp_path)), lambda name, event: told.append(name))
    workers.start()
    while not told:
        assert workers.wait(0.1) == []
    (process,) = multiprocessing.active_children()
    os.kill(process.pid, signal.SIGTERM)
    assert [str(death) for death in workers.wait(SECONDS)] == ["SIGTERM"]
    assert workers.num_running == 0


def test_units_do_not_fail_for_a_parent_that_is_gone(tmp_path):
    here, there = multiprocessing.Pipe(duplex=False)
    here.close()
    statuses = run_units(fake_plan(tmp_path), FakeWork(), processes._Relay(there))
    assert {status.state for status in statuses.values()} == {"done"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_workers_one_killed_give_the_results_of_one_process(tmp_path, monkeypatch):
    # Workers that begin at once; those of the commands below are fresh interpreters.
    monkeypatch.setattr(processes, "_CONTEXT", SERVER)
    alone, plan = grid(tmp_path, "alone"), grid(tmp_path, "shared")
    with build_session(alone.preset.environment) as session:
        run_units(alone, LocalExecutor(session, TaskSets.of(alone.preset, session)), Silent())
    killed, told = [], Told()
    thread = kill_once_it_trains(plan, killed)
    statuses = run_units_in_processes(plan, 2, told)
    thread.join()
    assert len(killed) == 1
    assert told.told == [f"a worker died (SIGKILL); {killed[0]} is owed again"]
    assert {status.state for status in statuses.values()} == {"done"}
    assert set(statuses) == set(told.finished) == {unit.name for unit in plan.units}
    assert {"step", "evaluated"} <= {name for event in told.events for name in event}
    assert is_equal(plan.root / "results.parquet", alone.root / "results.parquet")
    assert run_units_in_processes(plan, 2, told) == statuses


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, id="ctrl-c"),
        pytest.param(signal.SIGTERM, id="term", marks=pytest.mark.soak),
        pytest.param(signal.SIGKILL, id="kill"),
    ],
)
def test_a_signal_ends_all_workers_and_leaves_their_units_owed(tmp_path, number):
    root = tmp_path / "stopped"
    settings = [*overrides(tmp_path), "train.steps=4000", "--out", str(root), "--workers", "2"]
    process = Forked(command, "grid", "toy_copy", *settings, output=tmp_path / "said")
    pids: set[int] = set()
    end = time.monotonic() + SECONDS
    while len(pids) < 2 and time.monotonic() < end and process.code is None:
        found = [json.loads(path.read_text()) for path in root.glob("cells/*/*/status.json")]
        pids |= {status["pid"] for status in found if status["state"] == "running" and status["pid"]}
        time.sleep(0.05)
    started = descendants(process.pid)
    # To its group, as at a terminal, where Ctrl-C reaches every process.
    os.killpg(process.pid, number)
    text = process.end(SECONDS)
    assert len(pids) == 2 and pids <= started
    assert all(is_gone(pid) for pid in started)
    assert [read_status(path.parent).state for path in root.glob("cells/*/*/status.json")] == ["owed"] * 2
    if number != signal.SIGKILL:
        assert process.code == 130, text
        assert "The same command continues" in text and "Traceback" not in text


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_fails_in_every_worker_is_said_once(tmp_path):
    """A checkpoint without weights: both cells and the warm start fail for it, and each is run by one worker."""
    settings = overrides(tmp_path)
    next((tmp_path / "policy").glob("*.safetensors")).unlink()
    settings += ["train.steps=1", "--out", str(tmp_path / "run"), "--workers", "2"]
    process = Forked(command, "grid", "toy_copy", *settings, output=tmp_path / "said")
    text = process.end(SECONDS)
    assert process.code == 1, text
    assert "Traceback" not in text
    assert text.count("FAILED") <= 3
    assert text.count("units failed for one reason") == 1
    assert Path(tmp_path / "run" / "results.parquet").is_file()
