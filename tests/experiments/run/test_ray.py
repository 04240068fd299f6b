"""Grids on a Ray cluster on loopback: local results, a killed worker, Ctrl-C; what is said without Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from dllm_rl.errors import ConfigError
from dllm_rl.policies.loading import save_policy
from experiments.design.config import build_session
from experiments.design.presets import load_preset
from experiments.design.units import GridPlan, TaskSets, plan_grid, versions
from experiments.run import ray as ray_workers
from experiments.run.cell import LocalExecutor
from experiments.run.ray import Cluster, RayWorkers, require_ray, run_units_on_ray, work_on_node
from experiments.run.results import is_equal
from experiments.run.runner import Silent, begin, owed_units, refresh, run_units
from experiments.run.status import Status, claim, read_status, write_status
from experiments.run.workers import MAX_DEATHS, Launch, WorkersError, supervise
from tests.experiments.grids import FakeWork
from tests.experiments.grids import plan as fake_plan
from tests.tiny_policies import make_tiny_policy

ROOT = Path(__file__).parents[3]
SECONDS = float(os.environ.get("CLUSTER_TEST_SECONDS", "240"))
# For Ray, which reads its settings when it is imported: no reports, and all of its servers on 127.0.0.1.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def overrides(folder: Path) -> list[str]:
    """A text-only grid of two objectives whose policy has random weights: milliseconds a step."""
    if not (folder / "policy").is_dir():
        save_policy(make_tiny_policy("masked"), folder / "policy")
    return [
        "policies=[masked]",
        f"policies.masked.checkpoint={folder / 'policy'}",
        "objectives=[grpo,espo]",
        "seeds=[0]",
        "train={steps: 12, prompts_per_step: 2, group_size: 4, checkpoint_every: 4}",
        "evaluation={max_tasks: 4, num_samples: 1}",
    ]


def grid(folder: Path, name: str, *others: str) -> GridPlan:
    preset = load_preset("toy_copy", [*overrides(folder), *others])
    with build_session(preset.environment) as session:
        return plan_grid(preset, TaskSets.of(preset, session), folder / name)


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
        self.finished: list[str] = []
        self.events: list[dict] = []
        self.told: list[str] = []

    def event(self, unit, event) -> None:
        self.events.append(event)

    def finish(self, unit, status) -> None:
        self.finished.append(unit.name)

    def tell(self, text) -> None:
        self.told.append(text)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_workers_one_killed_give_the_results_of_one_process(tmp_path):
    pytest.importorskip("ray")
    alone, plan = grid(tmp_path, "alone"), grid(tmp_path, "cluster")
    with build_session(alone.preset.environment) as session:
        run_units(alone, LocalExecutor(session, TaskSets.of(alone.preset, session)), Silent())
    killed, told = [], Told()
    thread = kill_once_it_trains(plan, killed)
    statuses = run_units_on_ray(plan, Cluster(workers_per_node=2), told)
    thread.join()
    assert len(killed) == 1
    assert {status.state for status in statuses.values()} == {"done"}
    assert set(statuses) == set(told.finished) == {unit.name for unit in plan.units}
    assert any("step" in event for event in told.events)
    assert is_equal(plan.root / "results.parquet", alone.root / "results.parquet")
    # Nothing is owed, so nothing connects.
    assert run_units_on_ray(plan, Cluster(address="127.0.0.1:1"), told) == statuses


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_ctrl_c_ends_the_workers_and_leaves_their_units_owed(tmp_path):
    pytest.importorskip("ray")
    root = tmp_path / "stopped"
    command = [sys.executable, "-m", "experiments.cli", "grid", "toy_copy", *overrides(tmp_path), "train.steps=4000"]
    command += ["--out", str(root), "--executor", "ray", "--workers", "2"]
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
    assert [read_status(path.parent).state for path in root.glob("cells/*/*/status.json")] == ["owed"] * 2
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


def launch(plan: GridPlan, **changes) -> Launch:
    settings = {"digest": plan.config.digest, "versions": versions(), "chosen": None} | changes
    return Launch(preset=plan.preset, root=plan.root, cwd=Path.cwd(), **settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"root": Path("/nowhere")}, "is not the run folder of the driver.*shared disk"),
        ({"versions": versions() | {"torch": "0.1"}}, "torch .* instead of 0.1.*would not be comparable"),
        ({"digest": "other"}, "digest .* instead of other"),
    ],
)
def test_a_node_that_would_mix_results_refuses(tmp_path, changes, message):
    plan = grid(tmp_path, "run")
    plan.root.mkdir()
    begin(plan)
    with pytest.raises(ConfigError, match=f"(?s)^node .*{message}"):
        work_on_node(replace(launch(plan), **changes))


class FakeRay:
    """Ray whose workers run in this process, one after another; `deadly` units kill theirs."""

    class exceptions:  # noqa: N801 - as Ray names it
        class RayError(Exception): ...

        class RayTaskError(RayError): ...

    def __init__(self, plan: GridPlan, deadly: set[str]) -> None:
        self.plan, self.deadly, self.num_started = plan, deadly, 0

    def remote(self, **options):
        return lambda function: SimpleNamespace(remote=self._start)

    def _start(self, told: Launch) -> object:
        self.num_started += 1
        return object()

    def wait(self, tasks, *, num_returns, timeout):
        return tasks[:1], tasks[1:]

    def get(self, task) -> None:
        for unit in owed_units(self.plan):
            if unit.name in self.deadly and read_status(unit.folder).state != "failed":
                write_status(unit.folder, Status(state="running", pid=999_999))
                raise self.exceptions.RayError("killed")
        run_units(self.plan, FakeWork(), Silent(), retries_failed=False)

    def cancel(self, task, *, force) -> None: ...


def test_a_unit_that_kills_every_worker_fails_and_the_others_are_done(tmp_path):
    plan, told = fake_plan(tmp_path), Told()
    begin_in(plan)
    deadly = plan.units[3]
    ray = FakeRay(plan, {deadly.name})
    workers = RayWorkers(ray, launch(plan))
    supervise(workers, owed_units(plan), num_workers=2, progress=told, reads_steps=True)
    statuses = refresh(plan)
    assert statuses[deadly.name].state == "failed" and f"died {MAX_DEATHS} times" in statuses[deadly.name].cause
    assert ray.num_started == 2 + MAX_DEATHS
    assert sum(status.state == "done" for status in statuses.values()) == len(plan.units) - 1
    assert set(told.finished) == set(statuses)
    assert told.told == [f"a worker died (killed); {deadly.name} is owed again"] * MAX_DEATHS


class StruckRay(FakeRay):
    """The first workers hold a unit each when one event kills them all; those after them live."""

    def __init__(self, plan: GridPlan, num_struck: int) -> None:
        super().__init__(plan, set())
        self.num_left = num_struck
        for unit in plan.units[:num_struck]:
            write_status(unit.folder, Status(state="running", pid=999_999))

    def get(self, task) -> None:
        self.num_left -= 1
        if self.num_left >= 0:
            raise self.exceptions.RayError("killed")
        super().get(task)


def test_one_event_that_kills_all_workers_is_one_death_of_each_unit(tmp_path):
    plan, told = fake_plan(tmp_path), Told()
    begin_in(plan)
    num_struck = MAX_DEATHS + 2
    workers = RayWorkers(StruckRay(plan, num_struck), launch(plan))
    supervise(workers, owed_units(plan), num_workers=num_struck, progress=told, reads_steps=True)
    assert {status.state for status in refresh(plan).values()} == {"done"}
    assert told.told == [f"a worker died (killed); {unit.name} is owed again" for unit in plan.units[:num_struck]]


def test_workers_that_die_before_they_begin_end_the_launch(tmp_path, monkeypatch):
    plan = fake_plan(tmp_path)
    begin_in(plan)
    ray = FakeRay(plan, set())
    monkeypatch.setattr(ray, "get", lambda task: (_ for _ in ()).throw(FakeRay.exceptions.RayError("no such module")))
    workers = RayWorkers(ray, launch(plan))
    with pytest.raises(WorkersError, match="died 3 times before they had begun"):
        supervise(workers, owed_units(plan), num_workers=2, progress=Silent(), reads_steps=True)


def begin_in(plan: GridPlan) -> None:
    plan.root.mkdir(parents=True, exist_ok=True)
    begin(plan)


def test_a_unit_that_failed_in_another_worker_is_not_run_again(tmp_path):
    plan, work_ = fake_plan(tmp_path), FakeWork()
    begin_in(plan)
    failed = plan.units[3]
    with claim(failed.folder):
        write_status(failed.folder, Status(state="failed", cause="burned"))
    run_units(plan, work_, Silent(), retries_failed=False)
    assert failed.name not in work_.calls and len(work_.calls) == len(plan.units) - 1


def test_without_ray_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(ray_workers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'dllm-rl\[ray\]'"):
        require_ray()
