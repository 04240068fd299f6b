"""Survival over seeds, metrics of other toolkits, and alarms while a run trains."""

from __future__ import annotations

import json

import pytest

from dllm_rl.errors import ConfigError
from dllm_rl.files import append_rows
from experiments.analysis.collapse import diagnose
from experiments.analysis.collapse.online import CollapseError, OnlineDiagnosis
from experiments.analysis.collapse.sources import read_metrics
from experiments.analysis.collapse.survival import Lifetime, kaplan_meier, lifetime, log_rank
from tests.experiments.synthetic import metrics_of


def lives(*steps: int, alive: int = 0, end: int = 30) -> list[Lifetime]:
    return [Lifetime(steps=step, is_collapsed=True) for step in steps] + [
        Lifetime(steps=end, is_collapsed=False) for _ in range(alive)
    ]


def test_three_of_five_collapsed_median_eighteen():
    found = kaplan_meier(lives(10, 15, 18, alive=2))
    assert (found.num_collapsed, found.num_runs, found.median) == (3, 5, 18)
    assert found.shares[:3] == pytest.approx((0.8, 0.6, 0.4))


def test_a_censored_run_leaves_the_risk_set():
    """By hand: 1 of 4 lost at 5, one run ends at 7, 1 of 2 lost at 9: 3/4, then 3/8."""
    found = kaplan_meier([*lives(5, 9), Lifetime(steps=7, is_collapsed=False), Lifetime(steps=12, is_collapsed=False)])
    share = dict(zip(found.steps, found.shares, strict=True))
    assert share[5] == pytest.approx(3 / 4)
    assert share[9] == pytest.approx(3 / 8)


def test_log_rank_tells_groups_apart():
    apart = log_rank(lives(3, 4, 5, 6, 7), lives(alive=5))
    assert apart is not None
    assert apart < 0.01
    assert log_rank(lives(3, 9, alive=1), lives(3, 9, alive=1)) == pytest.approx(1.0)
    assert log_rank(lives(alive=3), lives(alive=3)) is None


def test_a_run_that_did_not_collapse_is_censored_at_its_end():
    assert lifetime(diagnose(metrics_of("healthy", 60))) == Lifetime(steps=60, is_collapsed=False)
    assert lifetime(diagnose(metrics_of("drift", 60))).is_collapsed


def test_metrics_of_ours_trl_and_verl(tmp_path):
    rows = metrics_of("off_policy", 60)
    append_rows(tmp_path / "metrics.jsonl", rows)
    assert diagnose(read_metrics(tmp_path)).kind == "off_policy"
    history = [{"step": r["step"], "reward": r["reward"], "grad_norm": r["grad_norm"]} for r in rows]
    history += [{"step": 60, "eval_reward": 0.3}, {"step": 60, "train_runtime": 12.0}]
    state = tmp_path / "trainer_state.json"
    state.write_text(json.dumps({"log_history": history}))
    assert read_metrics(state)[-1] == {"step": 60, "eval_reward": 0.3}
    assert diagnose(read_metrics(state)).num_steps == 60
    assert diagnose(read_metrics(state)).first_signal == "grad_norm"
    log = tmp_path / "train.log"
    log.write_text(
        "".join(
            f"(pid=1) step:{r['step']} - critic/score/mean:{r['reward']:.4f} - "
            f"actor/grad_norm:np.float64({r['grad_norm']})\n"
            for r in rows
        )
    )
    assert diagnose(read_metrics(log)).kind == "off_policy"


def test_what_is_no_metrics_file_is_refused(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "other.log").write_text("hello\n")
    for path in (tmp_path, tmp_path / "other.json", tmp_path / "other.log", tmp_path / "none.jsonl"):
        with pytest.raises(ConfigError):
            read_metrics(path)


@pytest.mark.parametrize("kind", ["off_policy", "estimator_noise"])
def test_alarms_while_training(kind):
    rows = metrics_of(kind, 60)
    quiet, stopping = OnlineDiagnosis(), OnlineDiagnosis(on_alarm="stop")
    assert not any(quiet.observe(row) for row in rows)
    stops = [row["step"] for row in rows if stopping.observe(row)]
    assert stops[0] < 60
    assert len({(alarm.detector, alarm.signal) for alarm in quiet.alarms}) == len(quiet.alarms)
    raising = OnlineDiagnosis(on_alarm="raise")
    with pytest.raises(CollapseError):
        any(raising.observe(row) for row in rows)


def test_a_healthy_run_is_let_through():
    watch = OnlineDiagnosis(on_alarm="raise")
    assert not any(watch.observe(row) for row in metrics_of("healthy", 60))
