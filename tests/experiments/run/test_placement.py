"""Units side by side on a machine with several GPUs, whose number is simulated: each worker has one of its own."""

from __future__ import annotations

import multiprocessing
import time

import pytest
import torch

from dllm_rl.load_options import LoadOptions
from dllm_rl.policies.devices import usable_device
from experiments.cli.grid import run_grid
from experiments.run import cell, processes
from experiments.run.placement import PLACES, own_gpu
from experiments.run.processes import run_units_in_processes
from tests.experiments.grids import FakeWork, preset
from tests.experiments.run.test_ray import SECONDS, Told, grid, overrides


class NotesItsDevice(FakeWork):
    """Writes beside each unit where its policy would be loaded; the first two wait for one another."""

    def __init__(self, session, tasks) -> None:
        super().__init__()

    def _rows(self, unit):
        (unit.folder / "device").write_text(str(usable_device(unit.cell.loading)))
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and len(list(unit.folder.parents[2].rglob("device"))) < 2:
            time.sleep(0.02)
        return super()._rows(unit)


@pytest.mark.parametrize(("device", "expected"), [("cuda", {"cuda:0", "cuda:1"}), ("cuda:1", {"cuda:1"})])
def test_workers_have_a_gpu_each_and_one_that_is_named_is_kept(tmp_path, monkeypatch, device, expected):
    """Forked, so that they see the simulated GPUs and the work that notes them."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(processes, "_CONTEXT", multiprocessing.get_context("fork"))
    monkeypatch.setattr(cell, "LocalExecutor", NotesItsDevice)
    plan = grid(tmp_path, "run", f"policies.masked.device={device}")
    statuses = run_units_in_processes(plan, 2, Told())
    assert {status.state for status in statuses.values()} == {"done"}, statuses
    assert {path.read_text() for path in plan.root.rglob("device")} == expected


def test_a_process_takes_the_first_place_that_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    chosen = preset(tmp_path, "policies.masked.device=cuda")

    def found() -> int | None:
        return usable_device(LoadOptions(device="cuda")).index

    with own_gpu(chosen, tmp_path):
        assert found() == 0
        with own_gpu(chosen, tmp_path):
            assert found() == 1
        # Another run does not know of this one.
        with own_gpu(chosen, tmp_path / "other"):
            assert found() == 0
        with own_gpu(chosen, tmp_path):
            assert found() == 1
    assert found() is None


def test_a_command_beside_another_takes_the_next_gpu(tmp_path, monkeypatch):
    """Each runs units in its own process."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("experiments.cli.grid.write_report", lambda root: None)
    monkeypatch.setattr("experiments.cli.grid.print_verdicts", lambda root, console: None)

    class Notes(NotesItsDevice):
        def _rows(self, unit):
            (unit.folder / "device").write_text(str(usable_device(unit.cell.loading)))
            return FakeWork._rows(self, unit)

    monkeypatch.setattr(cell, "LocalExecutor", Notes)
    root, settings = tmp_path / "run", [*overrides(tmp_path), "policies.masked.device=cuda"]
    with own_gpu(preset(tmp_path, "policies.masked.device=cuda"), root):
        assert run_grid("toy_copy", settings, out=root, is_dry_run=False, workers=1) == 0
    assert {path.read_text() for path in root.rglob("device")} == {"cuda:1"}


def test_without_a_gpu_no_place_is_taken(tmp_path):
    with own_gpu(preset(tmp_path), tmp_path):
        assert not (tmp_path / PLACES).exists()
