"""Logs of other trainers, each as its writer writes it: the same run is read from all of them."""

from __future__ import annotations

import csv
import io
import json
import sys
from typing import Any

import pytest

from dllm_rl.errors import ConfigError
from experiments.analysis.collapse import diagnose
from experiments.analysis.collapse.readers import one_a_step, read_runs
from experiments.analysis.collapse.sources import find_runs

REWARDS = {step: round(0.1 + 0.01 * step, 4) for step in range(5, 105, 5)}


def dicts(**more: Any) -> list[dict[str, Any]]:
    return [{"loss": 0.01, "reward": reward, "reward_std": 0.2, **more} for reward in REWARDS.values()]


def lines(rows: list[dict[str, Any]]) -> str:
    """JSON lines without a newline at the end, as some writers leave them."""
    return "\n".join(json.dumps(row) for row in rows)


def with_step(name: str, form: str = "{}", **more: Any) -> list[dict[str, Any]]:
    values = [int(step) if form == "{}" else form.format(step) for step in REWARDS]
    return [{**row, name: value} for row, value in zip(dicts(**more), values, strict=True)]


def bar(step: int) -> str:
    return f"\r  {step}%|███       | {step}/100 [00:12<01:00,  1.2s/it]"


def table(header: list[str], columns: list[list[Any]]) -> str:
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([header, *zip(*columns, strict=True)])
    return file.getvalue()


STEPS, VALUES = list(REWARDS), list(REWARDS.values())
VERL = [f"step:{step} - actor/grad_norm:0.2 - critic/score/mean:{reward}" for step, reward in REWARDS.items()]
TRACKED = [{"_step": 7 * step, "train/global_step": step, "train/reward": reward} for step, reward in REWARDS.items()]

LOGS: dict[str, tuple[str, str]] = {
    "trainer state": (
        "trainer_state.json",
        json.dumps({"log_history": [*with_step("step"), {"step": 100, "train_runtime": 3.0}]}),
    ),
    "console of TRL with its bar": (
        "train.log",
        "Map: 100%|███| 900/900 [00:01<00:00, 900/s]\n"
        + "".join(f"{bar(step)}\n{row}\n" for step, row in zip(REWARDS, dicts(epoch=0.1), strict=True))
        + "{'train_runtime': 12.5, 'reward': 0.2}\n",
    ),
    "console of transformers 5, numbers as text": (
        "train.log",
        "".join(
            f"{bar(step)}\n{ {'loss': '0.01', 'reward': str(reward), 'grad_norm': 'nan'} }\n"
            for step, reward in REWARDS.items()
        ),
    ),
    "console of verl": (
        "train.log",
        "loading\n" + "\n".join(f"\x1b[36m(TaskRunner pid=7)\x1b[0m {line}" for line in VERL),
    ),
    "console of verl behind a bar": (
        "train.log",
        "".join(f"Training Progress:  1%|#  | 1/100 [1:00<9:00, 81.49s/it]{line}" for line in VERL),
    ),
    "console of verl, a metric a line, model output between": (
        "train.log",
        "".join(
            f"(TaskRunner pid=1) {line.replace(' - ', chr(10) + ' - ')}\n[answer] score:9 - time:3\n" for line in VERL
        ),
    ),
    "file logger of verl": (
        "verl.jsonl",
        lines([{"step": step, "data": {"critic/score/mean": reward}} for step, reward in REWARDS.items()]),
    ),
    "history of wandb, with rows of a profiler": (
        "history.jsonl",
        lines([row for each in TRACKED for row in ({"_step": each["_step"] - 1, "profiling/Time": 0.2}, each)]),
    ),
    "history of wandb as an array": ("history.json", json.dumps(TRACKED)),
    "history of wandb as CSV": (
        "history.csv",
        table(["", "_step", "train/global_step", "train/reward"], [STEPS, STEPS, STEPS, VALUES]),
    ),
    "chart of wandb as CSV": (
        "wandb_export.csv",
        table(["Step", "warm-1 - train/reward", "warm-1 - train/reward__MIN"], [STEPS, VALUES, [""] * len(STEPS)]),
    ),
    "ms-swift": ("logging.jsonl", lines(with_step("global_step/max_steps", "{}/100", percentage="5.00%"))),
    "LLaMA-Factory": ("trainer_log.jsonl", lines(with_step("current_steps", total_steps=100, elapsed_time="0:00:12"))),
    "PowerShell's redirection": ("train.log", "\n".join(VERL)),
}


@pytest.mark.parametrize("name", LOGS)
def test_the_same_run_is_read_whoever_wrote_it(tmp_path, name):
    file, text = LOGS[name]
    path = tmp_path / file
    path.write_text(text, encoding="utf-16" if name.startswith("PowerShell") else "utf-8")
    (run,) = find_runs(path)
    rewards = {
        row["step"]: next(row[key] for key in row if key.endswith(("reward", "score/mean"))) for row in run.metrics
    }
    assert rewards == pytest.approx(REWARDS)


def as_pandas_writes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a data frame: every column in each, null where nothing was logged."""
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in columns} for row in rows]


@pytest.mark.parametrize(("file", "write"), [("history.json", json.dumps), ("history.jsonl", lines)])
def test_missing_cells_of_a_table_are_no_numbers_that_were_not_finite(tmp_path, file, write):
    """An evaluation, and the row that sums up the run, share the last step with a training row."""
    own = [{"_step": 710, "train/global_step": 100, "train/train_runtime": 3.0}]
    own += [{"_step": 711, "train/global_step": 100, "eval/reward": 0.5}]
    path = tmp_path / file
    path.write_text(write(as_pandas_writes([*TRACKED, *own])))
    (run,) = find_runs(path)
    assert {row["step"]: row["train/reward"] for row in run.metrics} == REWARDS
    assert run.metrics[-1]["eval/reward"] == 0.5
    assert diagnose(run.metrics).kind == "healthy"


def test_a_null_replaces_no_number_of_its_step():
    rows = [{"step": 1, "reward": 0.5, "kl": None}, {"step": 1, "reward": None, "kl": None, "eval_reward": 0.4}]
    assert one_a_step(rows) == [{"step": 1, "reward": 0.5, "kl": None, "eval_reward": 0.4}]


def test_wandb_tells_what_is_not_finite_in_words(tmp_path):
    path = tmp_path / "history.json"
    path.write_text(json.dumps(as_pandas_writes([*TRACKED[:-1], {**TRACKED[-1], "train/reward": "NaN"}])))
    (run,) = find_runs(path)
    assert diagnose(run.metrics).kind == "numerical"


def test_a_console_without_a_bar_is_counted_and_its_evaluations_belong_to_the_row_before(tmp_path):
    path = tmp_path / "train.log"
    rows = ({"loss": 0.1, "reward": 0.5}, {"eval_reward": 0.4}, {"loss": 0.1, "reward": 0.6})
    path.write_text("".join(f"{row | {'epoch': 1.0}}\n" for row in rows))
    (run,) = find_runs(path)
    assert [(row["step"], row.get("eval_reward")) for row in run.metrics] == [(1, 0.4), (2, None)]


def test_dicts_that_a_user_prints_are_not_the_trainers(tmp_path):
    path = tmp_path / "train.log"
    own = {"step": 25, "direction": 1, "reward": -1.0}
    path.write_text("".join(f"{bar(5 * n)}\n{ {'loss': 0.1, 'reward': 0.5, 'epoch': 0.1} }\n{own}\n" for n in range(3)))
    (run,) = find_runs(path)
    assert [(row["step"], row["reward"]) for row in run.metrics] == [(0, 0.5), (5, 0.5), (10, 0.5)]


def test_a_chart_of_several_runs_gives_each_its_own(tmp_path):
    path = tmp_path / "wandb_export.csv"
    path.write_text(table(["Step", "one - reward", "two - v2 - reward"], [STEPS, VALUES, ["", *VALUES[1:]]]))
    runs = find_runs(path)
    assert [(run.name, len(run.metrics)) for run in runs] == [("one", 20), ("two - v2", 19)]


def test_a_folder_of_several_runs_gives_one_each(tmp_path):
    state = json.dumps({"log_history": with_step("step")})
    for place in ("a/checkpoint-5", "a/checkpoint-100", "b", "b/runs"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "a/checkpoint-5/trainer_state.json").write_text('{"log_history": []}')
    (tmp_path / "a/checkpoint-100/trainer_state.json").write_text(state)
    (tmp_path / "b/trainer_state.json").write_text(state)
    (tmp_path / "c.log").write_text("\n".join(VERL))
    (tmp_path / "latest").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "notes.txt").write_text("nothing to see")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    runs = find_runs(tmp_path)
    assert [(run.name, len(run.metrics)) for run in runs] == [("a", 20), ("b", 20), ("c.log", 20)]


def test_event_files_of_tensorboard(tmp_path):
    """As transformers writes them: a file for each start, the second from a checkpoint of step 50."""
    from torch.utils.tensorboard import SummaryWriter

    for stop, until, offset in ((0, 70, 0.5), (50, 100, 0.0)):
        with SummaryWriter(tmp_path, filename_suffix=f".{stop}") as writer:
            for step, reward in REWARDS.items():
                if stop < step <= until:
                    writer.add_scalar("train/reward", reward + offset * (step > 50), step)
            writer.add_text("args", "text is no metric")
        # Files are in order of the second in which they were begun.
        for path in tmp_path.glob("*.0"):
            path.rename(tmp_path / "events.out.tfevents.1.host.0")
    (run,) = find_runs(tmp_path)
    assert {row["step"]: row["train/reward"] for row in run.metrics} == pytest.approx(REWARDS, abs=1e-6)
    (alone,) = find_runs(tmp_path / "events.out.tfevents.1.host.0")
    assert len(alone.metrics) == 14


def test_event_files_without_the_package_say_what_is_missing(tmp_path, monkeypatch):
    path = tmp_path / "events.out.tfevents.1.host"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match=r"dllm-rl\[tensorboard\]"):
        read_runs(path)


def test_a_torn_last_line_is_left_out_and_numbers_that_are_not_finite_stay(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "reward": 0.5, "kl": NaN}\n{"step": 2, "reward": null, "kl": "inf"}\n{"step": 3, "rew')
    (run,) = find_runs(path)
    assert [row["step"] for row in run.metrics] == [1, 2]
    assert run.metrics[1] == {"step": 2, "reward": None, "kl": float("inf")}


@pytest.mark.parametrize(
    "text",
    [
        "step:" + "9" * 5000 + " - critic/score/mean:0.5\n",
        '{"step": 1, "reward": ' + "9" * 5000 + "}\n",
        "[" * 5000,
        'step,reward\n"' + "x" * 200_000,
        '{"step": 1e300, "reward": 0.5}\n',
    ],
    ids=["a step of digits", "a number of digits", "brackets", "a cell without end", "a step that is none"],
)
def test_what_no_trainer_writes_is_refused_or_passed_over(tmp_path, text):
    path = tmp_path / "train.log"
    path.write_text(text)
    try:
        runs = find_runs(path)
    except ConfigError:
        return
    assert all(len(run.metrics) <= 1 for run in runs)
