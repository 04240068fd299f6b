"""A grid under `accelerate launch`: two processes end in the results of one, and fail together."""

from __future__ import annotations

import pytest

from dllm_rl.training.ranks import ALONE
from experiments.design.config import build_session
from experiments.design.units import TaskSets
from experiments.run.cell import Leader, LocalExecutor, follow
from experiments.run.results import is_equal
from experiments.run.runner import ProcessesBrokenError, Silent, owed_units, run_units
from experiments.run.status import read_status
from tests.dllm_rl.training.test_ranks import launch
from tests.experiments.grids import FakeWork, plan
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


def test_where_one_process_fails_the_unit_is_owed_and_all_end(tmp_path):
    """The others wait in an exchange that will never come, so no further unit is started."""
    owing = plan(tmp_path)
    broken = owing.units[3]
    work = FakeWork({broken.name: RuntimeError("out of memory")})
    with pytest.raises(ProcessesBrokenError, match=f"{broken.name}: RuntimeError: out of memory"):
        run_units(owing, Leader(work, ALONE), Silent())
    assert read_status(broken.folder).state == "owed"
    assert owed_units(owing) == list(owing.units[3:])


def test_a_follower_does_what_it_is_told_until_it_is_released(tmp_path):
    owing, work = plan(tmp_path), FakeWork()
    orders = iter([("warm_start", owing.units[0].name), ("cell", owing.units[2].name), None])

    class Orders:
        def from_first(self, value):
            return next(orders)

    follow(owing, work, Orders())  # type: ignore[arg-type]
    assert work.calls == [owing.units[0].name, owing.units[2].name]
