"""`dllm-rl diagnose`: finds the runs under a path, names what became of them, and refuses what it cannot read."""

from __future__ import annotations

import json

import pytest

from dllm_rl.errors import ConfigError
from dllm_rl.files import append_rows
from experiments.analysis.collapse.sources import find_runs
from experiments.cli.diagnose import show_diagnosis
from tests.experiments.synthetic import metrics_of, write_run


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return write_run(
        tmp_path_factory.mktemp("runs") / "grid",
        seeds=(0, 1, 2),
        num_steps=40,
        num_tasks=4,
        num_samples=1,
        kinds={"masked-grpo": "off_policy"},
        policies=("autoregressive", "masked"),
        objectives=("grpo",),
    )


def test_a_grid_gives_a_run_for_each_cell_and_seed(grid, capsys):
    assert show_diagnosis(grid, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    kinds = {run["run"]: run["kind"] for run in found["runs"]}
    assert len(kinds) == 3 * 4
    assert {kinds[f"masked-grpo seed {seed}"] for seed in range(3)} == {"off_policy"}
    assert {kinds[f"autoregressive-grpo seed {seed}"] for seed in range(3)} == {"healthy"}
    group = next(item for item in found["groups"] if item["group"] == "masked-grpo")
    assert (group["num_collapsed"], group["num_runs"]) == (3, 3)
    assert 20 <= group["median"] <= 28


def test_people_read_kind_onset_order_and_what_was_not_found(grid, capsys):
    show_diagnosis(next(grid.glob("cells/masked-grpo-*")), as_json=False)
    text = capsys.readouterr().out
    assert "off-policy blow-up" in text
    assert "3 of 3 seeds collapsed, median step" in text
    assert "in order: " in text
    assert "moved first, at step" in text
    assert "values that are not finite" in text


def test_a_seed_of_a_cell_is_one_run(grid):
    seed = next(grid.glob("cells/masked-grpo-*")) / "seed1"
    assert [run.path for run in find_runs(seed)] == [seed]


def test_the_newest_checkpoint_of_a_trl_run_is_read(tmp_path):
    for step in (5, 20, 100):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        history = [{"step": row["step"], "reward": row["reward"]} for row in metrics_of("healthy", step)]
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    (run,) = find_runs(tmp_path)
    assert len(run.metrics) == 100


def test_verl_as_it_writes_files_and_as_it_prints(tmp_path):
    rows = metrics_of("off_policy", 60)
    named = [{"critic/score/mean": row["reward"], "actor/grad_norm": row["grad_norm"]} for row in rows]
    append_rows(tmp_path / "verl.jsonl", [{"step": index, "data": row} for index, row in enumerate(named)])
    log = "".join(
        f"\x1b[36m(TaskRunner pid=7)\x1b[0m step:{index} - critic/score/mean:{row['critic/score/mean']}"
        f" - actor/grad_norm:np.float64({row['actor/grad_norm']})\n"
        for index, row in enumerate(named)
    )
    (tmp_path / "verl.log").write_text("starting\n" + log)
    for name in ("verl.jsonl", "verl.log"):
        (run,) = find_runs(tmp_path / name)
        assert [row["step"] for row in run.metrics] == list(range(60))
        assert run.metrics[7]["critic/score/mean"] == pytest.approx(rows[7]["reward"])


def test_a_supervised_run_says_that_reward_is_not_recorded(tmp_path, capsys):
    state = tmp_path / "trainer_state.json"
    history = [{"step": step, "loss": 1 / (1 + step), "grad_norm": 1.0, "note": "text"} for step in range(40)]
    state.write_text(json.dumps({"log_history": history}))
    show_diagnosis(state, as_json=False)
    assert "Neither reward nor success is recorded" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("trainer_state.json", '{"log_history": [', "not valid JSON"),
        ("trainer_state.json", '{"log_history": 3}', "no metric that is known here"),
        ("metrics.jsonl", "hello", "not a training log that can be read here"),
        ("metrics.jsonl", "[1]\n", "not a training log that can be read here"),
        ("metrics.jsonl", '{"step": 1, "colour": 2}\n', "no metric that is known here: it has colour"),
        ("config.json", "{}", "holds no metrics"),
        ("train.log", "nothing\n", "not a training log that can be read here"),
        ("weights.log", "\0\0\0", "is not text"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message) as refused:
        find_runs(tmp_path if name == "config.json" else tmp_path / name)
    assert message == "not valid JSON" or "- event files of TensorBoard" in str(refused.value)


def test_a_model_saved_beside_its_checkpoints_makes_no_grid_of_them(tmp_path):
    state = tmp_path / "checkpoint-10" / "trainer_state.json"
    state.parent.mkdir()
    state.write_text('{"log_history": [{"step": 1, "reward": 0.5}]}')
    for folder in (tmp_path, state.parent):
        (folder / "config.json").write_text('{"model_type": "llama"}')
    assert [run.metrics for run in find_runs(tmp_path)] == [[{"step": 1, "reward": 0.5}]]
    assert len(find_runs(state.parent)) == 1


def test_empty_and_missing_paths_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no metrics"):
        find_runs(tmp_path)
    with pytest.raises(ConfigError, match="no file or folder"):
        find_runs(tmp_path / "nowhere")


def test_a_page_beside_the_input_shows_curves_onsets_and_what_was_looked_for(tmp_path, capsys):
    state = tmp_path / "trainer_state.json"
    history = [
        {"step": row["step"], "reward": row["reward"] - 0.5, "clip_ratio": row["clip_ratio/region_mean"], "note": "<b>"}
        | {"grad_norm": row["grad_norm"], "rewards/format/mean": 0.2}
        for row in metrics_of("off_policy", 60)
    ]
    state.write_text(json.dumps({"log_history": history}))
    assert show_diagnosis(state, as_json=False, as_page=True) == 0
    page = (tmp_path / "trainer_state.json.diagnosis.html").read_text()
    assert "Off-policy blow-up from step" in page
    for name in ("reward", "clip_ratio/region_mean", "grad_norm", "rewards/format/mean"):
        assert f"<b>{name}</b>" in page
    assert page.count('class="onset"') > 4
    assert 'class="departure"' in page
    assert "a part of the reward lost behind a growing one" in page
    assert "<script" not in page
    assert "wrote" in capsys.readouterr().err


def test_a_page_of_several_runs_elsewhere(grid, tmp_path):
    out = tmp_path / "pages" / "grid.html"
    show_diagnosis(grid, as_json=True, out=out)
    page = out.read_text()
    assert "3 of 12 runs collapsed" in page
    assert "masked-grpo: 3 of 3 seeds collapsed" in page
    assert "seed 2: " in page
