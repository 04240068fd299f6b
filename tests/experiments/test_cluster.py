"""Grids on a Ray cluster of two nodes on loopback: local results, killed workers, Ctrl-C; what is said without Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dllm_rl.errors import ConfigError
from dllm_rl.policies.loading import save_policy
from experiments.cell import LocalExecutor
from experiments.cluster import connection, run
from experiments.cluster.fleet import MAX_DEATHS, Fleet
from experiments.cluster.run import Cluster, run_units_on_ray
from experiments.cluster.worker import Job, Worker
from experiments.components import build_session
from experiments.config import Preset, load_preset
from experiments.results import is_equal
from experiments.run_folder import read_status
from experiments.runner import owed_units, run_units
from experiments.units import GridPlan, TaskSets, plan_grid, versions
from tests.experiments.grids import Silent
from tests.experiments.grids import plan as fake_plan
from tests.tiny_policies import make_tiny_policy

ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("CLUSTER_TEST_SECONDS", "240"))
# For Ray, which reads its settings when it is imported: no reports, and all of its servers on 127.0.0.1.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def overrides(folder: Path) -> list[str]:
    """A text-only grid of two objectives and two seeds whose policy has random weights: milliseconds a step."""
    if not (folder / "policy").is_dir():
        save_policy(make_tiny_policy("masked"), folder / "policy")
    return [
        "policies=[masked]",
        f"policies.masked.checkpoint={folder / 'policy'}",
        "objectives=[grpo,espo]",
        "seeds=[0,1]",
        "train={steps: 60, prompts_per_step: 2, group_size: 4, checkpoint_every: 4}",
        "evaluation={max_tasks: 4, num_samples: 1}",
    ]


def grid(folder: Path, name: str) -> tuple[Preset, GridPlan]:
    preset = load_preset("toy_copy", overrides(folder))
    with build_session(preset.environment) as session:
        return preset, plan_grid(preset, TaskSets.of(preset, session), folder / name)


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    """Folder of the policy, and of the results of the local runner, `local`."""
    folder = tmp_path_factory.mktemp("cluster")
    preset, plan = grid(folder, "local")
    with build_session(preset.environment) as session:
        run_units(plan, LocalExecutor(session, TaskSets.of(preset, session)), Silent())
    return folder


@pytest.fixture(scope="module")
def cluster():
    """Address of a Ray cluster of two nodes on this machine; all its processes end with the module."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster as LocalCluster

    for attempt in range(3):
        nodes = LocalCluster()
        try:
            for _ in range(2):
                nodes.add_node(num_cpus=1, include_dashboard=False, node_ip_address="127.0.0.1")
            break
        except Exception:
            # A node has 30 seconds to come up, which is too little on a machine with much else to do.
            nodes.shutdown()
            if attempt == 2:
                raise
    try:
        yield nodes.address
    finally:
        nodes.shutdown()


def kill_once_it_trains(plan: GridPlan, killed: list[str]) -> threading.Thread:
    """Kill -9 the first process that is seen to train, after its first step."""

    def watch() -> None:
        # A cluster may take minutes to start on a busy machine, so the end is that of the work and not of a clock.
        while any(read_status(unit.folder).state not in ("done", "failed") for unit in plan.units):
            for unit in plan.units:
                status = read_status(unit.folder)
                if status.state == "running" and status.pid and (unit.folder / "metrics.jsonl").is_file():
                    os.kill(status.pid, signal.SIGKILL)
                    killed.append(unit.name)
                    return
            time.sleep(0.005)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


class Told(Silent):
    """Progress that keeps what it was told."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.events: list[dict] = []

    def start(self, unit) -> None:
        self.started.append(unit.name)

    def event(self, unit, event) -> None:
        self.events.append(event)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_nodes_one_killed_worker_and_the_results_of_a_local_run(cluster, local, monkeypatch):
    seats: dict[str, str] = {}

    class Watched(Fleet):
        def start(self, seat, unit) -> None:
            seats[unit] = seat.node
            super().start(seat, unit)

    monkeypatch.setattr(run, "Fleet", Watched)
    _, plan = grid(local, "cluster")
    killed, told = [], Told()
    thread = kill_once_it_trains(plan, killed)
    statuses = run_units_on_ray(plan, Cluster(address=cluster), told)
    thread.join()
    assert {status.state for status in statuses.values()} == {"done"}
    assert set(statuses) == {unit.name for unit in plan.units}
    # The unit of the worker that was killed was owed again, and no other.
    assert len(killed) == 1
    assert sorted(told.started) == sorted([*statuses, *killed])
    assert len(set(seats.values())) == 2
    assert any("step" in event for event in told.events)
    assert is_equal(plan.root / "results.parquet", local / "local" / "results.parquet")
    assert not list(plan.root.glob(".cluster*"))
    # Nothing is owed, so nothing connects.
    assert run_units_on_ray(plan, Cluster(address="127.0.0.1:1"), told) == statuses


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ctrl_c_ends_the_workers_and_leaves_their_units_owed(cluster, local):
    root = local / "stopped"
    command = [sys.executable, "-m", "experiments.cli", "grid", "toy_copy", *overrides(local), "train.steps=4000"]
    command += ["--out", str(root), "--executor", "ray", "--address", cluster]
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    )
    pids: set[int] = set()
    end = time.monotonic() + SECONDS
    while len(pids) < 2 and time.monotonic() < end and process.poll() is None:
        found = [json.loads(path.read_text()) for path in root.glob("cells/*/*/status.json")]
        pids |= {status["pid"] for status in found if status["state"] == "running" and status["pid"]}
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, text
    assert "The same command continues" in text
    assert len(pids) == 2
    states = [json.loads(path.read_text()) for path in root.glob("cells/*/*/status.json")]
    assert [status["state"] for status in states] == ["owed"] * 2
    assert {status["cause"] for status in states} == {"interrupted"}
    assert all(is_gone(pid) for pid in pids)


def is_gone(pid: int) -> bool:
    """Whether a process has ended, within seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def job(local: Path, **changes) -> Job:
    preset, plan = grid(local, "elsewhere")
    plan.root.mkdir(exist_ok=True)
    (plan.root / "token").touch()
    settings = {"token": "token", "digest": plan.config["digest"], "versions": versions()} | changes
    return Job(preset=preset, root=plan.root, cwd=Path.cwd(), **settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token": "other"}, "is not the run folder of the driver.*shared disk"),
        ({"versions": versions() | {"torch": "0.1"}}, "torch .* instead of 0.1.*would not be comparable"),
        ({"digest": "other"}, "digest .* instead of other"),
    ],
)
def test_a_node_that_would_mix_results_refuses(local, changes, message):
    with pytest.raises(ConfigError, match=f"(?s)^node .*{message}"):
        Worker(job(local, **changes)).open()


def test_a_worker_that_is_told_to_stop_leaves_its_unit_owed(local):
    worker = Worker(job(local))
    assert worker.open()
    _, plan = grid(local, "elsewhere")
    unit = next(unit for unit in plan.units if not unit.is_warm_start)
    worker.stop()
    assert worker.run(unit.name).cause == "interrupted"
    assert read_status(unit.folder).state == "owed"
    worker.close()


class FakeFleet:
    """Two seats in this process; units in `deadly` kill their worker every time."""

    deadly: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.at_work: list[str] = []

    def idle(self) -> list[str]:
        return ["seat"] * (2 - len(self.at_work))

    def start(self, seat, unit) -> None:
        self.at_work.append(unit)

    def wait(self, seconds):
        name = self.at_work.pop(0)
        return [(name, None if name in self.deadly else run.Status(state="done"))]

    def events(self):
        return []

    def stop(self) -> None: ...


def test_a_unit_that_kills_every_worker_fails_and_the_others_are_done(tmp_path, monkeypatch):
    plan, told = fake_plan(tmp_path), Told()
    deadly = plan.units[3].name
    monkeypatch.setattr(FakeFleet, "deadly", (deadly,))
    dispatch = run._Dispatch(plan, told)
    dispatch.run(FakeFleet())  # type: ignore[arg-type]
    statuses = dispatch.statuses
    assert statuses[deadly].state == read_status(plan.units[3].folder).state == "failed"
    assert f"died {MAX_DEATHS} times" in statuses[deadly].cause
    assert told.started.count(deadly) == MAX_DEATHS
    assert sum(status.state == "done" for status in statuses.values()) == len(plan.units) - 1
    assert plan.units[3] in owed_units(plan)


def test_many_deaths_give_the_grid_up(tmp_path, monkeypatch):
    plan, told = fake_plan(tmp_path), Told()
    monkeypatch.setattr(FakeFleet, "deadly", tuple(unit.name for unit in plan.units))
    dispatch = run._Dispatch(plan, told)
    dispatch.run(FakeFleet())  # type: ignore[arg-type]
    statuses = dispatch.statuses
    assert set(statuses) == {unit.name for unit in plan.units}
    assert {status.state for status in statuses.values()} == {"failed", "owed"}


def test_without_ray_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(connection.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'dllm-rl\[ray\]'"):
        connection.require_ray()
