"""A grid under `accelerate launch`: two processes end in the results of one, and fail together."""

from __future__ import annotations

import pytest

from dllm_rl.errors import ConfigError
from dllm_rl.training.ranks import ALONE, Ranks
from experiments.cli.grid import _launched
from experiments.design.config import build_session
from experiments.design.grid import build_cells
from experiments.design.units import TaskSets
from experiments.run.cell import Leader, LocalExecutor, follow
from experiments.run.processes import number_of_workers
from experiments.run.ray import Cluster
from experiments.run.results import is_equal
from experiments.run.runner import ProcessesBrokenError, Silent, owed_units, run_units
from experiments.run.status import read_status
from harness.browser import share_cores, usual_places
from tests.dllm_rl.training.test_ranks import launch
from tests.experiments.grids import FakeWork, plan, preset
from tests.experiments.run.test_ray import grid, overrides


@pytest.mark.soak
def test_two_processes_end_in_the_results_of_one(tmp_path):
    alone = grid(tmp_path, "alone")
    with build_session(alone.preset.environment) as session:
        run_units(alone, LocalExecutor(session, TaskSets.of(alone.preset, session)), Silent())
    output = launch("-m", "experiments.cli", "grid", "toy_copy", *overrides(tmp_path), "--out", str(tmp_path / "two"))
    assert is_equal(tmp_path / "two" / "results.parquet", alone.root / "results.parquet")
    # One of the two speaks.
    assert output.count("units of work") == 1


def test_where_one_process_fails_the_unit_is_failed_and_all_end_and_the_next_start_does_the_others_first(tmp_path):
    """The others wait in an exchange that will never come, so no further unit is started."""
    owing = plan(tmp_path)
    broken = owing.units[3]
    work = FakeWork({broken.name: RuntimeError("out of memory")})
    with pytest.raises(ProcessesBrokenError, match=f"{broken.name}: RuntimeError: out of memory"):
        run_units(owing, Leader(work, ALONE), Silent())
    status = read_status(broken.folder)
    assert (status.state, status.cause) == ("failed", "RuntimeError: out of memory")
    assert "RuntimeError: out of memory" in (broken.folder / "failure.txt").read_text()
    assert owed_units(owing) == list(owing.units[3:])
    with pytest.raises(ProcessesBrokenError):
        run_units(owing, Leader(work, ALONE), Silent())
    assert owed_units(owing) == [broken]


def test_launched_processes_share_the_cores_of_their_machine(tmp_path, monkeypatch):
    monkeypatch.setattr("dllm_rl.training.ranks.launched_ranks", lambda devices: Ranks(number=0, count=2))
    monkeypatch.setattr("harness.browser.pool.usable_cores", lambda: 8)
    monkeypatch.setattr("experiments.run.cell.usable_cores", lambda: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    threads = []
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    free = preset(tmp_path, "threads=null")
    alone = usual_places("page")
    try:
        _launched(free, None, None)
        assert usual_places("page") == alone // 4
    finally:
        share_cores(1)
    LocalExecutor._set_threads(build_cells(free)[0])
    assert threads == [2]


def test_a_site_that_one_process_may_have_open_is_refused_to_several(tmp_path, monkeypatch):
    site = preset(tmp_path, "environment={name: site, options: {url: 'http://127.0.0.1:9/', reset: 'true'}}")
    with pytest.raises(ConfigError, match=r"--workers 2 was given, and only one process .* its reset puts the whole"):
        number_of_workers(site, 2, ())
    assert number_of_workers(site, None, plan(tmp_path).units) == number_of_workers(site, 1, ()) == 1
    with pytest.raises(ConfigError, match="--executor ray was given, and only one process"):
        _launched(site, Cluster(), None)
    monkeypatch.setattr("dllm_rl.training.ranks.launched_ranks", lambda devices: Ranks(number=0, count=2))
    with pytest.raises(ConfigError, match="accelerate launch was given, and only one process"):
        _launched(site, None, None)


def test_a_follower_does_what_it_is_told_until_it_is_released(tmp_path):
    owing, work = plan(tmp_path), FakeWork()
    orders = iter([("warm_start", owing.units[0].name), ("cell", owing.units[2].name), None])

    class Orders:
        def from_first(self, value):
            return next(orders)

    follow(owing, work, Orders())  # type: ignore[arg-type]
    assert work.calls == [owing.units[0].name, owing.units[2].name]
