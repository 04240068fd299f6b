"""What an alarm does to a run: nothing, an early end that is evaluated like any other, or a failure. Real training."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from dllm_rl.errors import ConfigError
from dllm_rl.files import read_rows
from dllm_rl.policies.loading import save_policy
from dllm_rl.session import Session
from experiments.analysis.collapse import detectors
from experiments.analysis.pairing import pair, split_by
from experiments.design.grid import build_cells
from experiments.design.presets import load_preset
from experiments.design.units import TaskSets, plan_grid, training_digest
from experiments.run.cell import LocalExecutor
from experiments.run.folder import read_alarms
from experiments.run.runner import Silent, run_units
from experiments.run.status import read_status
from tests.experiments.analysis.collapse.text_lab import TextEnvironment, random_policy

FIRST_BAD, STEPS = 3, 6
# The first step at which a whole window of losses is known.
SEEN = 4


def broken() -> TextEnvironment:
    """Every second rollout of training is lost from the fourth step on."""
    return TextEnvironment(lambda batch, row: batch >= FIRST_BAD and row % 2 == 0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy") / "autoregressive"
    save_policy(random_policy("autoregressive"), folder)
    return folder


def preset_of(checkpoint, on_alarm: str):
    settings = [f"train.steps={STEPS}", "train.checkpoint_every=2", "evaluation.max_tasks=3", "threads=1"]
    chosen = ["policies=[autoregressive]", "objectives=[grpo]", "controls=[]"]
    return load_preset(
        "ci", [*chosen, f"policies.autoregressive.checkpoint={checkpoint}", *settings, f"on_alarm={on_alarm}"]
    )


def run(checkpoint, folder, on_alarm: str, environment: TextEnvironment, progress=None):
    with Session(environment) as session:
        tasks = TaskSets.of(preset := preset_of(checkpoint, on_alarm), session)
        plan = plan_grid(preset, tasks, folder)
        statuses = run_units(plan, LocalExecutor(session, tasks), progress or Silent())
    return plan.units[-1], statuses[plan.units[-1].name]


def test_a_stopped_run_is_recorded_and_evaluated_like_any_other(checkpoint, tmp_path):
    unit, status = run(checkpoint, tmp_path, "stop", broken())
    assert (status.state, status.label, status.stopped_at) == ("done", "stopped", SEEN)
    assert "lost to the environment" in status.cause
    assert len(read_rows(unit.folder / "metrics.jsonl")) == SEEN + 1
    assert read_alarms(unit.folder).stopped_at == SEEN
    record = unit.files.record()
    assert record is not None and record.trained_by == (record.versions,)
    assert (record.versions["device"], "torch" in record.versions) == ("cpu", True)
    results = pq.read_table(tmp_path / "results.parquet")
    sampled = [row["mode"] == "sampled" for row in results.select(["mode"]).to_pylist()]
    stages = split_by(results.filter(sampled), "stage")
    pairs = pair(stages["final"], stages["warmstart"])
    assert (pairs.num_pairs, pairs.num_lost) == (sum(sampled) // 2, 0)


class StopAtEvaluation(Silent):
    """Ctrl-C in the cell's evaluation, after its training has ended."""

    def event(self, unit, event) -> None:
        if "evaluated" in event and not unit.is_warm_start:
            raise KeyboardInterrupt


def test_a_stopped_run_that_is_interrupted_trains_no_further(checkpoint, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, tmp_path, "stop", broken(), StopAtEvaluation())
    environment = broken()
    unit, status = run(checkpoint, tmp_path, "stop", environment)
    assert environment.batch == 0
    assert (status.label, status.stopped_at) == ("stopped", SEEN)
    assert len(read_rows(unit.folder / "metrics.jsonl")) == SEEN + 1


def test_raise_fails_the_cell_until_it_is_told_to_log(checkpoint, tmp_path):
    unit, status = run(checkpoint, tmp_path, "raise", broken())
    assert status.state == "failed"
    assert f"at step {SEEN}: " in status.cause
    again = broken()
    assert run(checkpoint, tmp_path, "raise", again)[1].state == "failed"
    assert again.batch == 0
    unit, status = run(checkpoint, tmp_path, "log", TextEnvironment())
    assert (status.state, status.stopped_at) == ("done", None)
    assert [row["step"] for row in read_rows(unit.folder / "metrics.jsonl")] == list(range(STEPS))
    assert read_status(unit.folder).cause == ""


def test_only_stopping_makes_another_training(checkpoint):
    digests = {
        on_alarm: training_digest(build_cells(preset_of(checkpoint, on_alarm))[0], checkpoint="c", tasks="t")
        for on_alarm in ("log", "raise", "stop")
    }
    assert digests["log"] == digests["raise"] != digests["stop"]


def test_a_run_that_may_be_stopped_is_keyed_by_what_stops_it(checkpoint, monkeypatch):
    def digests() -> list[str]:
        cells = [build_cells(preset_of(checkpoint, on_alarm))[0] for on_alarm in ("log", "stop")]
        return [training_digest(cell, checkpoint="c", tasks="t") for cell in cells]

    before = digests()
    monkeypatch.setattr(detectors, "VERSION", detectors.VERSION + 1)
    after = digests()
    assert (before[0] == after[0], before[1] == after[1]) == (True, False)


def test_the_negative_control_is_made_to_alarm_and_only_logs():
    cells = build_cells(load_preset("grid16", ["on_alarm=stop"]))
    assert {cell.on_alarm for cell in cells if cell.role == "negative"} == {"log"}
    assert {cell.on_alarm for cell in cells if cell.role != "negative"} == {"stop"}


def test_a_word_that_is_no_reaction_is_refused():
    with pytest.raises(ConfigError, match="'log', 'stop' or 'raise'"):
        load_preset("quick", ["on_alarm=halt"])
